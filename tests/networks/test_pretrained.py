"""Pretrained networks: PyTorch's numbers, frozen and trainable trunks, files that are refused."""

import io
import json
import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks import make_torch_goldens
from benchmarks.make_efficientnet_golden import images
from jaxrobust.errors import UserError
from jaxrobust.networks import cpu, pretrained, weight_files
from jaxrobust.networks.cpu import depthwise_conv2d

GOLDEN = Path(__file__).parent.parent / "golden" / "efficientnet_lite0.npz"
NAME = "efficientnet_lite0"


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN)


@pytest.mark.parametrize("size", [64, 128])
def test_logits_are_those_of_pytorch(golden, size):
    params, state = pretrained.variables(NAME)
    network = pretrained.build(NAME, 1000)
    mean, std = pretrained.normalization(NAME)
    x = (images(size) - mean.reshape(1, 1, 1, 3)) / std.reshape(1, 1, 1, 3)
    logits, _ = jax.jit(lambda p, s, x: network.apply(p, s, x, False))(params, state, x)
    np.testing.assert_allclose(logits, golden[f"logits_{size}"], atol=1e-4)


def test_features_are_those_of_pytorch_in_any_batches(golden):
    calls = []
    found = pretrained.features(
        NAME,
        images(64).repeat(2, 0)[:3],
        image_size=64,
        batch_size=2,
        progress=lambda *values: calls.append(values),
    )
    assert found.shape == (3, 1280) and found.dtype == np.float32
    np.testing.assert_allclose(found, golden["features_64"][[0, 0, 1]], atol=1e-4)
    assert [call[:2] for call in calls] == [(2, 3), (3, 3)] and calls[-1][2] == 0
    assert pretrained.features(NAME, images(64)[:0], image_size=64).shape == (0, 1280)


def test_images_are_resized_by_pillow_and_gray_ones_repeated():
    gray = np.arange(100, dtype=np.uint8).reshape(10, 10, 1)
    small = pretrained.resize(gray, 32)
    assert small.shape == (32, 32, 3) and (np.ptp(small, axis=2) == 0).all()
    np.testing.assert_array_equal(pretrained.resize(small, 32), small)
    with pytest.raises(UserError, match="uint8 images"):
        pretrained.resize(gray.astype(np.float32), 32)


def weights(network, freeze):
    return pretrained.with_weights(network, NAME, freeze=freeze)


def test_a_frozen_trunk_is_state_and_only_the_head_learns(golden):
    network = weights(pretrained.build(NAME, 3), freeze=True)
    mean, std = pretrained.normalization(NAME)
    x = (images(64) - mean.reshape(1, 1, 1, 3)) / std.reshape(1, 1, 1, 3)
    params, state = network.init(jax.random.key(0), x)
    assert network.stages == ("head",) == tuple(params)

    @jax.jit
    def step(params, state):
        def loss(params):
            logits, new = network.apply(params, state, x, True)
            return jnp.square(logits).sum(), (logits, new)

        return jax.grad(loss, has_aux=True)(params)

    gradient, (logits, new) = step(params, state)
    head = params["head"]["linear"]
    expected = golden["features_64"] @ np.asarray(head["kernel"]) + np.asarray(head["bias"])[None]
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, new, state)
    np.testing.assert_allclose(
        gradient["head"]["linear"]["bias"], 2 * expected.sum(0), rtol=1e-3, atol=1e-4
    )


def test_without_freezing_the_published_weights_are_where_training_begins():
    plain = pretrained.build(NAME, 3)
    network = weights(plain, freeze=False)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    params, state = network.init(jax.random.key(0), x)
    published, statistics = pretrained.variables(NAME)
    assert network.stages == plain.stages == tuple(plain.stages)
    for stage in network.stages[:-1]:
        jax.tree.map(np.testing.assert_array_equal, params[stage], published[stage])
        jax.tree.map(np.testing.assert_array_equal, state[stage], statistics[stage])
    assert params["head"]["linear"]["kernel"].shape == (1280, 3)

    def loss(params):
        logits, new = network.apply(params, state, jnp.zeros((2, 32, 32, 3)), True)
        return jnp.square(logits).sum(), new

    gradient, new = jax.eval_shape(jax.grad(loss, has_aux=True), params)
    assert jax.tree.structure(gradient) == jax.tree.structure(params)
    assert jax.tree.structure(new) == jax.tree.structure(state)


@pytest.mark.parametrize(
    "size, kernel, stride, padding",
    [
        ((6, 8), 3, 1, (1, 1)),
        ((6, 8), 3, 2, (0, 1)),
        ((8, 8), 5, 2, (1, 2)),
        ((2, 2), 5, 1, (2, 2)),
    ],
)
def test_depthwise_convolution_and_its_derivatives_are_xlas(x64, size, kernel, stride, padding):
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (2, *size, 3), jnp.float64)
    w = jax.random.normal(keys[1], (kernel, kernel, 1, 3), jnp.float64)

    def results():
        def f(x, w):
            return depthwise_conv2d(x, w, stride, padding)

        return f(x, w), jax.grad(lambda x, w: jnp.sin(f(x, w)).sum(), (0, 1))(x, w)

    ours = results()
    with cpu.switched_off():
        expected = results()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), ours, expected)
    assert "conv_general" not in str(
        jax.make_jaxpr(lambda x, w: depthwise_conv2d(x, w, stride, padding))(x, w)
    )


class FakeTensor:
    """Pickled as PyTorch pickles a tensor, without PyTorch."""

    def __init__(self, array, count=None, function="_rebuild_tensor_v2"):
        self.array, self.count, self.function = array, count, function


def write_zip(path, tensors):
    """A file as `torch.save` writes it."""
    buffer, data = io.BytesIO(), {}

    class Pickler(pickle._Pickler):
        def save_global(self, obj, name=None):
            self.write(pickle.GLOBAL + f"{obj}\n".replace("/", "\n").encode())
            self.memoize(obj)

        def persistent_id(self, obj):
            return obj[1] if isinstance(obj, tuple) and obj[:1] == ("pid",) else None

        def save(self, obj, save_persistent_id=True):
            if isinstance(obj, Global):
                self.write(pickle.GLOBAL + obj.name.replace("/", "\n").encode() + b"\n")
            elif isinstance(obj, FakeTensor):
                key, array = str(len(data)), obj.array
                data[key] = array.tobytes()
                strides = tuple(s // array.itemsize for s in array.strides)
                count = array.size if obj.count is None else obj.count
                pid = ("pid", ("storage", Global("torch/FloatStorage"), key, "cpu", count))
                self.save_reduce(
                    Global(f"torch._utils/{obj.function}"),
                    (pid, 0, array.shape, strides, False, None),
                )
            else:
                super().save(obj, save_persistent_id)

    class Global:
        def __init__(self, name):
            self.name = name

        def __call__(self):
            raise AssertionError

    Pickler(buffer, 2).dump(tensors)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", buffer.getvalue())
        for key, raw in data.items():
            archive.writestr(f"archive/data/{key}", raw)
    return path


def test_the_zip_format_is_read_and_wrong_tensors_are_refused(tmp_path):
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = weight_files.read(write_zip(tmp_path / "a.pth", {"w": FakeTensor(a)}))
    assert list(found) == ["w"]
    np.testing.assert_array_equal(found["w"], a)
    turned = weight_files.read(write_zip(tmp_path / "t.pth", {"w": FakeTensor(a.T)}))
    assert turned["w"].shape == (3, 2)
    for tensors, message in (
        ({"w": FakeTensor(a, count=5)}, "larger than its storage"),
        ({"w": FakeTensor(a, count=7)}, "truncated"),
        ({"w": FakeTensor(a, function="_rebuild_sparse_tensor")}, "contains torch._utils._rebuild"),
        ({"w": 3}, "'w' is no tensor"),
    ):
        with pytest.raises(UserError, match=message):
            weight_files.read(write_zip(tmp_path / "b.pth", tensors))


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("touched"),)


@pytest.mark.parametrize("protocol", [2, 4])
def test_no_code_of_a_file_is_run(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    Path("evil.pth").write_bytes(pickle.dumps(Evil(), protocol))
    with pytest.raises(UserError, match=r"evil\.pth is no file of PyTorch tensors: it contains"):
        weight_files.read("evil.pth")
    assert not Path("touched").exists()
    Path("memo.pth").write_bytes(b"\x80\x02Nr\xff\xff\xff\xff.")
    with pytest.raises(UserError, match="memo is too long"):
        weight_files.read("memo.pth")
    Path("other.pth").write_bytes(pickle.dumps(OrderedDict(a=1), 2))
    with pytest.raises(UserError, match="does not begin as one"):
        weight_files.read("other.pth")


def test_wrong_files_are_one_line(tmp_path):
    original = pretrained.packaged_file(NAME)
    short = tmp_path / "short.pth"
    short.write_bytes(original.read_bytes()[:-1000])
    other = write_zip(
        tmp_path / "other.pth",
        {"_conv_stem.weight": FakeTensor(np.zeros((32, 3, 5, 5), np.float32))},
    )
    network = pretrained.build(NAME, 3)
    cases = [
        (lambda: weight_files.read(short), "truncated"),
        (lambda: weight_files.read(short, "0" * 64), "SHA-256"),
        (lambda: weight_files.read(tmp_path / "none.pth"), "No weight file"),
        (lambda: pretrained.with_weights(network, NAME, other), "has no '_"),
        (lambda: pretrained.variables("small_cnn"), "has no published weights"),
        (lambda: pretrained.variables("efficientnet_lite1"), "Did you mean"),
    ]
    (tmp_path / "a.safetensors").write_bytes(b"\x08\x00")
    cases.append((lambda: weight_files.read(tmp_path / "a.safetensors"), "as safetensors"))
    for call, message in cases:
        with pytest.raises(UserError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "vit_small",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet34", "resnet50")),
    ],
)
def test_files_of_torchvision_and_timm_give_their_features(tmp_path, name):
    stored = np.load(GOLDEN.parent / "torch_features.npz")
    side = make_torch_goldens.SIDES[name]
    tensors = make_torch_goldens.weights(json.loads(str(stored[f"{name}_shapes"])))
    file = tmp_path / "model.safetensors"
    save_file(tensors, file)
    found = pretrained.features(
        name, make_torch_goldens.images(side), source=file, image_size=side, batch_size=2
    )
    np.testing.assert_allclose(found, stored[f"{name}_features"], atol=1e-4)
    first = next(key for key in tensors if key.endswith("conv1.weight") or "proj.weight" in key)
    wrong = tmp_path / "wrong.safetensors"
    save_file(tensors | {first: tensors[first][:, :, :-1].copy()}, wrong)
    network = pretrained.build(name, 3)
    for source, message in ((wrong, f"'{first}' has shape"), (None, "truncated")):
        if source is None:
            source = tmp_path / "short.safetensors"
            source.write_bytes(file.read_bytes()[:100_000])
        with pytest.raises(UserError, match=message) as error:
            pretrained.with_weights(network, name, source)
        assert "\n" not in str(error.value)
    for other in {"resnet18", "resnet34"} - {name}:
        with pytest.raises(UserError, match="another network|not the published|does not fit"):
            pretrained.variables(other, file)


def test_a_hub_name_says_what_to_download(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"Download https://huggingface\.co/timm/resnet18\.a1_in1k"):
        pretrained.variables("resnet18", "hf:timm/resnet18.a1_in1k")


@pytest.mark.parametrize("kind", ["encrypted", "damaged"])
def test_archives_that_cannot_be_unpacked_are_one_line(tmp_path, kind):
    path = tmp_path / "w.pth"
    compression = zipfile.ZIP_STORED if kind == "encrypted" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", np.random.default_rng(0).bytes(400))
    content = bytearray(path.read_bytes())
    if kind == "encrypted":
        content[6] |= 1  # the flags of the file, and of the directory's entry
        content[content.index(b"PK\x01\x02") + 8] |= 1
    else:
        start = 30 + len("a/data.pkl")
        content[start : start + 50] = bytes(255 - b for b in content[start : start + 50])
    path.write_bytes(content)
    with pytest.raises(UserError, match="w.pth is truncated or no file of PyTorch") as error:
        weight_files.read(path)
    assert "\n" not in str(error.value)
