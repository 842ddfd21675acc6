"""The README's examples run as they stand."""

import re
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrobust.data import sampling

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def own_project():
    """What the examples take for granted: a model, its parameters, an optimiser and data."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 10
    x = jnp.asarray(rng.normal(size=(40, 12)) + 3 * np.eye(10, 12)[labels], jnp.float32)
    model = nn.Dense(10)
    params = model.init(jax.random.key(0), x)
    losses = optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), labels)
    rank = sampling.ranks_by_class(losses, jnp.asarray(labels), 10)
    batch = {"x": x, "labels": jnp.asarray(labels), "rank": rank, "index": jnp.arange(40)}
    return {
        "model": model, "params": params, "optimizer": optax.sgd(1.0), "x": x, "labels": labels,
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
    project = {"labels": np.where(np.arange(400) < 40, (true + 1) % 4, true),
               "p": 0.8 * np.eye(4)[true] + 0.05}
    exec(block, project)
    assert sorted(project["found"].indices) == list(range(40))


def accuracy(project, params):
    predicted = project["model"].apply(params, project["x"]).argmax(-1)
    return float((predicted == project["labels"]).mean())
