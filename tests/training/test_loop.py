"""The loop over an epoch's steps."""

import jax
import jax.numpy as jnp
import pytest

from jaxrobust.data import batches
from jaxrobust.errors import RunError
from jaxrobust.methods import Method, Pass, Stage, StepInfo, TrainState
from jaxrobust.training.loop import Feed, Place, Runner

STEPS, BATCH = 12, 2


@pytest.mark.parametrize(
    "place",
    [Place(pass_index=1), Place(pass_index=5), Place(position=3), Place(pass_index=1, position=1)],
)
def test_a_place_that_is_in_no_epoch_is_refused(place):
    stage = Stage("a", 1, (Pass("train", None, None, None),))
    method = Method(lambda key: None, (stage,), None)
    runner = Runner(method, None, None, jax.random.key(0), loop="step")
    with pytest.raises(RunError, match="of which it has no sums"):
        runner.epoch(None, place, None)


def test_no_more_than_one_step_waits_while_the_device_computes_another():
    """Not dozens, which a stop signal would have to wait for."""

    def step(state, batch, meta_batch, key, epoch):
        slow = jax.lax.fori_loop(0, 200, lambda _, x: jnp.sin(x @ x), jnp.ones((100, 100)))
        loss = state.step + 0 * slow[0, 0]
        return state._replace(step=state.step + 1), StepInfo(jnp.zeros((BATCH, 3)), {"loss": loss})

    def order(state, key, epoch):
        return batches.shuffled(key, jnp.arange(STEPS * BATCH, dtype=jnp.int32), BATCH)

    method = Method(
        lambda key: TrainState(jnp.int32(0), {}, {}, {}, {}, {}, {}, {}),
        (Stage("a", 1, (Pass("train", step, order, None),)),),
        None,
    )
    feed = Feed({"labels": jnp.zeros(STEPS * BATCH, jnp.int32), "x": jnp.zeros((STEPS * BATCH, 2))})
    runner = Runner(method, feed, lambda *a: None, jax.random.key(0), loop="step")
    sums, ahead = [], []

    def pause(state, place):
        sums.append(place.sums["train"]["bad_step"])
        ahead.append(sum(not value.is_ready() for value in sums))

    _, row = runner.epoch(method.init(None), Place(), pause)
    assert row["train_loss"] == (STEPS - 1) / 2
    assert len(ahead) == STEPS and max(ahead) <= 2
