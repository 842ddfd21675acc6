"""The README's examples run as they stand."""

import importlib.util
import re
import shlex
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from jaxrobust import main
from jaxrobust.data import examples
from jaxrobust.data.readers import tfds
from jaxrobust.objectives import ranks_by_class

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def own_project():
    """What the examples take for granted: a model, its parameters, an optimizer and data."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 10
    x = jnp.asarray(rng.normal(size=(40, 12)) + 3 * np.eye(10, 12)[labels], jnp.float32)
    model = nn.Dense(10)
    params = model.init(jax.random.key(0), x)
    losses = optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), labels)
    rank = ranks_by_class(losses, jnp.asarray(labels), 10)
    batch = {"x": x, "labels": jnp.asarray(labels), "rank": rank, "index": jnp.arange(40)}
    return {
        "model": model,
        "params": params,
        "optimizer": optax.sgd(1.0),
        "x": x,
        "labels": labels,
        "batches": [(batch, {"x": x, "labels": batch["labels"]})] * 20,
    }


def test_the_loss_example_trains(own_project):
    [block] = [b for b in BLOCKS if "dal_schedule" in b]
    exec(block, own_project)
    state = own_project["params"], own_project["optimizer"].init(own_project["params"])
    step = jax.jit(own_project["train_step"])
    for epoch in range(100):
        state = step(*state, own_project["x"], own_project["labels"], epoch)
    before, after = (accuracy(own_project, p) for p in (own_project["params"], state[0]))
    assert before < 0.5 < 0.8 < after


def test_the_learned_objective_example_trains_both(own_project):
    [block] = [b for b in BLOCKS if "make_bilevel" in b]
    exec(block, own_project)
    state = own_project["state"]
    assert int(state.step) == 20 and float(own_project["info"].meta_grad_norm) > 0
    assert accuracy(own_project, state.params) > 0.8


def test_the_label_issues_example_finds_what_is_wrong():
    [block] = [b for b in BLOCKS if "find_label_issues" in b]
    true = np.arange(400) % 4
    project = {
        "labels": np.where(np.arange(400) < 40, (true + 1) % 4, true),
        "p": 0.8 * np.eye(4)[true] + 0.05,
    }
    exec(block, project)
    assert sorted(project["found"].indices) == list(range(40))


@pytest.fixture
def table():
    """A table of four classes, named; every tenth label wrong."""
    rng = np.random.default_rng(0)
    true = np.arange(120) % 4
    x = (rng.normal(size=(120, 6)) + 4 * np.eye(4, 6)[true]).astype(np.float32)
    wrong = np.arange(120) % 10 == 0
    names = np.array(["ant", "bee", "cat", "dog"])
    return {"X": x, "y": names[np.where(wrong, (true + 1) % 4, true)], "X_new": x[:9]}, wrong


def test_the_estimator_example_names_suspect_labels(table):
    project, wrong = table
    [block] = [b for b in BLOCKS if "RobustClassifier" in b]
    exec(block, project)
    assert project["p"].shape == (9, 4)
    np.testing.assert_allclose(project["p"].sum(1), 1, rtol=1e-5)
    suspect = project["model"].label_issues_.indices
    assert len(suspect) and wrong[suspect].mean() > 0.8


def test_every_python_block_is_run():
    run = ("dal_schedule", "make_bilevel", "find_label_issues", "RobustClassifier")
    assert [sum(word in block for word in run) for block in BLOCKS] == [1] * len(run)


FILLED_IN = {"VARIANT": "both", "RATE": "0.4", "SEED": "0", "METHOD": "curvenet", "LOSS": "dal"}


def commands(text):
    """Command lines of `jaxrobust.main` in shell blocks, with what stands for a value filled in."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:3] == ["python", "-m", "jaxrobust.main"]:
                yield [re.sub("|".join(FILLED_IN), lambda m: FILLED_IN[m[0]], w) for w in words[2:]]


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """Where nothing is but what the examples say is there: photos, and CIFAR-10 as TFDS has it."""
    rng = np.random.default_rng(0)
    for kind in ("cats", "dogs"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for i in range(50):
            image = rng.integers(0, 256, (12, 12, 3), np.uint8)
            Image.fromarray(image).save(tmp_path / "photos" / kind / f"{i}.png")
    rows = [f"{rng.normal():.3f},{'abc'[i % 3]},{'sick' if i % 2 else 'well'}" for i in range(60)]
    (tmp_path / "patients.csv").write_text("age,ward,label\n" + "\n".join(rows) + "\n")
    np.savez(tmp_path / "embeddings.npz", x=rng.normal(size=(60, 8)), y=np.arange(60) % 3)
    labels = (np.arange(150) % 10).astype(np.int32)
    np.save(tmp_path / "human_worst.npy", labels)
    x = rng.integers(0, 256, (150, 32, 32, 3), np.uint8)

    def cifar10(name, *, data_dir, **_):
        assert (name, data_dir) == ("cifar10", "TFDS_DIR")
        split = examples.Examples(x, labels, None, np.arange(150))
        names = tuple(map(str, range(10)))
        return examples.Loaded({"train": split, "test": split}, names, None, 150)

    monkeypatch.setattr(tfds, "load", cifar10)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", list(commands(README)), ids=lambda c: " ".join(c[1:3]))
def test_every_command_passes_a_dry_run(command, empty_folder, capsys):
    before = sorted(empty_folder.rglob("*"))
    if "--help" not in command and "--dry_run" not in command:
        assert main.parse(command).workdir  # As it stands, without --dry_run, it is complete.
    assert main.run([*command, "--dry_run"]) == 0, capsys.readouterr().err
    assert sorted(empty_folder.rglob("*")) == before


def test_there_are_commands():
    assert len(list(commands(README))) == 12


def test_every_measured_number_is_in_the_documentation():
    docs = Path(__file__).parents[1] / "docs"
    source = (docs / "results.md").read_text() + (docs / "performance.md").read_text()
    [measured] = re.findall(r"^## Measured\n(.*?)^## More", README, re.M | re.S)
    cells = "\n".join(line for line in measured.splitlines() if line.startswith("| "))
    numbers = re.findall(r"\d+\.\d+(?: ± \d+\.\d+|–\d+\.\d+)?", cells)
    assert len(numbers) > 20 and not [n for n in numbers if n not in source]
    for module in re.findall(r"python -m (benchmarks\.\w+)", measured):
        assert importlib.util.find_spec(module) and f"python -m {module}" in source


def test_one_picture_and_every_link_leads_somewhere():
    root = Path(__file__).parents[1]
    assert re.findall(r"!\[[^]]*\]\((\S+)\)", README) == ["docs/images/report.png"]
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (root / target).exists(), target


def accuracy(project, params):
    predicted = project["model"].apply(params, project["x"]).argmax(-1)
    return float((predicted == project["labels"]).mean())
