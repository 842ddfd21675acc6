"""All that the suite computes on four virtual CPU devices, in one process.

    python tests/four_devices.py FOLDER

runs every case of CASES and writes FOLDER/results.json: by case, what it returned, and the
traceback of a case that failed. The fixture `four_devices` starts it once per run of the suite.
"""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys
import traceback
from pathlib import Path

import compile_cache
import helpers
import jax

from jaxrobust.training import sharding

HERE = Path(__file__).parent
# A run of the dynamic loss, of which also one device and two processes are tested.
RUN = [
    "--config=digits_dynamic_loss",
    "--config.network.name=mlp",
    "--config.network.width=16",
    "--config.train.batch_size=128",
    "--config.train.epochs=4",
    "--config.method.warmup_epochs=2",
    "--config.log.figures=False",
    "--config.data.noise.kind=symmetric",
    "--config.data.noise.rate=0.4",
    "--config.data.imbalance.kind=none",
    "--config.data.imbalance.factor=1.0",
    "--config.checkpoint.every_seconds=0",
    "--config.log.tensorboard=False",
]


def training(folder: Path) -> None:
    """Trains RUN in folder/w, evaluates it, and predicts w/x.npy with both networks."""
    import numpy as np
    from sklearn.datasets import load_digits

    def run(*arguments):
        done = helpers.run_main(*RUN, "--workdir=w", *arguments, folder=folder)
        assert done.returncode == 0, done.stderr

    run()
    run("--mode=evaluate")
    np.save(folder / "w" / "x.npy", load_digits().images.astype(np.uint8)[:30] * 15)
    for which in ("last", "selected"):
        run("--mode=predict", "--input=w/x.npy", f"--which={which}", f"--output=w/{which}.csv")
    spread = []
    shard = sharding.Layout.shard

    def shard_and_note(self, batch):
        spread.append(1 if self.mesh is None else self.mesh.size)
        return shard(self, batch)

    sharding.Layout.shard = shard_and_note
    try:
        run("--mode=predict", "--input=w/x.npy", "--output=w/again.csv")
    finally:
        sharding.Layout.shard = shard
    assert (folder / "w" / "again.csv").read_bytes() == (folder / "w" / "selected.csv").read_bytes()
    assert set(spread) == {4}, spread


def curves(folder: Path) -> None:
    """CurveNet's curves, shared by rows among the devices."""
    runpy.run_path(str(HERE / "methods" / "curves_on_four_devices.py"))


def bilevel(folder: Path) -> list[dict]:
    """One bilevel step: differences between one device and four, by case."""
    sys.path.insert(0, str(HERE / "bilevel"))
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            script = runpy.run_path(str(HERE / "bilevel" / "on_four_devices.py"))
            script["main"]()
    finally:
        jax.config.update("jax_enable_x64", False)
    return [json.loads(line) for line in said.getvalue().splitlines()]


def memory(folder: Path) -> None:
    """ELR's targets, shared by rows among the devices."""
    runpy.run_path(str(HERE / "methods" / "memory_on_four_devices.py"))


def average(folder: Path) -> list[list[float]]:
    """The moving average of the weights, flat, of one device and of four."""
    import numpy as np

    from jaxrobust.runs import experiment, fit

    found = []
    for devices in (1, 4):
        small = helpers.TINY | {"train.ema": 0.9, "train.devices": devices, "train.epochs": 2}
        state, _ = fit.fit(experiment.assemble(helpers.settings(small=small)))
        leaves = jax.tree.leaves(jax.device_get(state.average))
        found.append(np.concatenate([np.ravel(leaf) for leaf in leaves]).tolist())
    return found


def agreement(folder: Path) -> list[list[float]]:
    """Two networks that select for each other: the weights, flat, of one device and of four."""
    import numpy as np

    from jaxrobust.runs import experiment, fit

    found = []
    for devices in (1, 4):
        small = {"train.devices": devices, "train.epochs": 2, "method.name": "agreement"}
        small |= {"method.networks": 2, "method.warmup_epochs": 1}
        state, _ = fit.fit(experiment.assemble(helpers.settings(small=helpers.TINY | small)))
        leaves = jax.tree.leaves(jax.device_get((state.params, state.memory["second"][0])))
        found.append(np.concatenate([np.ravel(leaf) for leaf in leaves]).tolist())
    return found


CASES = (training, curves, memory, bilevel, average, agreement)


def main(folder: Path) -> None:
    assert len(jax.devices()) == 4, jax.devices()
    compile_cache.make_atomic()
    results = {}
    for case in CASES:
        results[case.__name__] = {"value": None, "error": None}
        try:
            results[case.__name__]["value"] = case(folder)
        except Exception:
            results[case.__name__]["error"] = traceback.format_exc()
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
