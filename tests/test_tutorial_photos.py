"""The commands of docs/tutorials/photos.md, typed one after the other in a folder with photos."""

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from benchmarks.make_torch_goldens import weights

PAGE = Path(__file__).parent.parent / "docs" / "tutorials" / "photos.md"


def commands():
    """Every line of the page's shell blocks, without `python -m jaxrobust.main`."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), flags=re.S | re.M)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert all(line[:3] == ["python", "-m", "jaxrobust.main"] for line in lines)
    return [line[3:] for line in lines]


def photos(folder, count, rng):
    for i in range(count):
        true = i % 3
        given = (true + 1) % 3 if i % 6 == 0 and folder.name == "photos" else true
        pixels = rng.integers(0, 90, (40, 52, 3), np.uint8)
        pixels[..., true] += 140
        path = folder / ("red", "green", "blue")[given] / f"{i}_{true}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


@pytest.mark.slow
def test_the_commands_of_the_page(program, golden, tmp_path):
    rng = np.random.default_rng(0)
    photos(tmp_path / "photos", 48, rng)
    photos(tmp_path / "new_photos", 6, rng)
    with np.load(golden("torch_features.npz")) as kept:
        shapes = json.loads(str(kept["resnet18_shapes"]))
    save_file(weights(shapes), tmp_path / "resnet18.safetensors")
    small = ["--config.train.epochs=7", "--config.train.batch_size=16"]
    for words in commands():
        done = program(*words, *(small if "--workdir=runs/dynamic" in words else ()))
        assert done.returncode == 0, (words, done.stderr)
    with (tmp_path / "corrected.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    true = ["rgb".index(row["label"][0]) == int(row["path"][-5]) for row in lines]
    before = ["rgb".index(row["replaces"][0]) == int(row["path"][-5]) for row in lines]
    assert len(lines) == 48 and np.mean(true) > np.mean(before) == 40 / 48
    with (tmp_path / "predictions.csv").open(newline="") as file:
        named = {row["example"]: row["predicted_label"] for row in csv.DictReader(file)}
    assert len(named) == 6
    assert np.mean([Path(name).parent.name == label for name, label in named.items()]) > 0.8
