"""The dynamic loss's steps against the same written out plainly: who sees which view and label."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrobust import losses
from jaxrobust.methods import _dynamic_loss, make_loss, supervised
from jaxrobust.runs import build_method

KEY = jax.random.key(3)


def weak(key, x):
    del key
    return x


def strong(key, x):
    del key
    return 1.5 - x


def at(made, rows, where=None):
    rows = jnp.asarray(rows, jnp.int32)
    where = jnp.ones(len(rows), bool) if where is None else where
    return {
        "x": jnp.asarray(made.x)[rows],
        "labels": jnp.asarray(made.labels)[rows],
        "index": rows,
        "where": where,
    }


def stepped(made, stage, pass_index, rows, meta_rows=None):
    """A step of a pass by itself, from the method's state: before, after, batch, metadata, info."""
    before, batch = jax.device_get(made.state), at(made, rows)
    meta_batch = None if meta_rows is None else at(made, meta_rows)
    step = made.method.stages[stage].passes[pass_index].step
    after, info = jax.jit(step)(made.state, batch, meta_batch, KEY, jnp.int32(2))
    return before, jax.device_get(after), batch, meta_batch, info


def logits(made, params, x):
    return made.network.apply(params, made.state.network_state, x, True)[0]


def updated(made, state, loss):
    """The parameters after one step of the optimizer on `loss(params)`."""
    updates, _ = made.optimizer.update(jax.grad(loss)(state.params), state.opt_state, state.params)
    return optax.apply_updates(state.params, updates)


def meta_updated(made, state, loss):
    grads, phi = jax.grad(loss)(state.meta_params), state.meta_params
    return optax.apply_updates(phi, made.meta_optimizer.update(grads, state.meta_opt_state, phi)[0])


def assert_close(a, b, **tolerance):
    tolerance = {"rtol": 1e-4, "atol": 1e-6} | tolerance
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def test_warm_up_is_cross_entropy_of_the_strong_view_and_fits_the_corrector_to_it(small):
    made = small(weak=weak, strong=strong)
    before, after, batch, _, info = stepped(made, 0, 0, range(16))
    batch, x = batch | {"rank": jnp.zeros(16, jnp.int32)}, strong(None, batch["x"])

    def loss(params):
        return losses.cross_entropy(logits(made, params, x), batch["labels"]).mean()

    def fitting(phi):
        return made.objective.fitting_loss(phi, logits(made, before.params, x), batch).mean()

    @jax.jit
    def expected():
        return loss(before.params), updated(made, before, loss), meta_updated(made, before, fitting)

    assert_close((info.scalars["loss"], after.params, after.meta_params), expected())


def test_fitting_leaves_the_margins_whatever_the_weight_decay(small):
    made = small(weak=weak, strong=strong)
    decaying = optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.1))
    phi = made.state.meta_params
    made.state = made.state._replace(meta_opt_state=decaying.init(phi))
    step = _dynamic_loss.warm_up_step(
        made.network, made.objective, made.optimizer, decaying, strong, fit_steps=10
    )
    after, _ = jax.jit(step)(made.state, at(made, range(16)), None, KEY, jnp.int32(0))
    jax.tree.map(np.testing.assert_array_equal, after.meta_params["margin"], phi["margin"])
    assert np.any(
        after.meta_params["corrector"]["rank_embedding"] != phi["corrector"]["rank_embedding"]
    )


def test_the_look_ahead_sees_the_weak_view_and_metadata_and_real_step_the_strong_one(small):
    made = small(weak=weak, strong=strong, corrector=False, meta_lr=0.1)
    before, after, batch, meta_batch, info = stepped(made, 1, 0, range(16), range(20, 28))

    def loss(view, phi, batch=batch):
        def of(params):
            z = logits(made, params, view(None, batch["x"])) + made.objective.margins(phi)[None]
            return losses.cross_entropy(z, batch["labels"]).mean()

        return of

    def meta_loss(phi):
        params = updated(made, before, loss(weak, phi))
        z = logits(made, params, strong(None, meta_batch["x"]))  # Without margins.
        return losses.cross_entropy(z, meta_batch["labels"]).mean()

    @jax.jit
    def expected():
        phi = meta_updated(made, before, meta_loss)
        return meta_loss(before.meta_params), phi, updated(made, before, loss(strong, phi))

    assert_close((info.scalars["meta_loss"], after.meta_params, after.params), expected())


def sure(made):
    """Makes the network so sure that a drawn label is the predicted one, the weights middling."""
    head = made.state.params["head"]["linear"]
    made.state.params["head"]["linear"] = {
        "kernel": 1e4 * head["kernel"],
        "bias": jnp.array([0.0, 200.0, -200.0]),
    }
    net = made.state.meta_params["corrector"]["rank_weight_net"]
    net["dense_2"]["bias"] = jnp.array([-1.0, 0.0, 1.0])


def test_fine_tuning_takes_margins_and_given_labels_and_leaves_the_objective(small):
    made = small(weak=weak, strong=strong)
    made.state.meta_params["margin"]["margin_net"]["dense_2"]["bias"] = jnp.array([3.0, 0, -2])
    net = made.state.meta_params["corrector"]["rank_weight_net"]
    net["dense_2"]["bias"] = jnp.full((3,), -50.0)  # A corrected label would not be the given.
    before, after, batch, _, _ = stepped(made, 1, 1, range(15))
    margins = made.objective.margins(before.meta_params)[None]

    def loss(params):
        z = logits(made, params, strong(None, batch["x"])) + margins
        return losses.cross_entropy(z, batch["labels"]).mean()

    assert_close(after.params, jax.jit(lambda: updated(made, before, loss))())
    for name in before.memory:
        jax.tree.map(np.testing.assert_array_equal, after.memory[name], before.memory[name])


@pytest.mark.parametrize("index, rows", [(0, range(16)), (1, range(15))], ids=["bilevel", "tune"])
def test_a_base_loss_that_changes_is_that_of_the_epoch(small, index, rows):
    counts = np.array([20, 20, 20])
    loss = make_loss("dal", {"q_start": 0.5, "q_end": 2.0}, epochs=4, class_counts=counts)
    made = small(
        weak=weak,
        strong=strong,
        corrector=False,
        meta_lr=0.0,
        base_loss=loss,
        reads=("epoch", "key"),
    )
    before, after, batch, _, info = stepped(made, 1, index, rows, range(20, 28))
    margins = made.objective.margins(before.meta_params)[None]
    q, lamb = losses.dal_schedule(2, 4, q_start=0.5, q_end=2.0)  # The steps are of epoch 2.
    assert lamb > 0

    def expected(params):
        z = logits(made, params, strong(None, batch["x"])) + margins
        return losses.dynamics_aware(z, batch["labels"], q=q, lamb=lamb).mean()

    np.testing.assert_allclose(info.scalars["loss"], expected(before.params), rtol=1e-5)
    assert_close(after.params, jax.jit(lambda: updated(made, before, expected))())


def test_mixup_mixes_strong_images_and_corrected_labels_alike(small, monkeypatch):
    partner, share = jnp.roll(jnp.arange(16), 5), jnp.full((16,), 0.8)
    monkeypatch.setattr(_dynamic_loss, "mixup_pairs", lambda key, n, alpha: (partner, share))
    made = small(weak=weak, strong=strong, mixup_alpha=0.5)
    sure(made)
    before, after, batch, _, info = stepped(made, 1, 0, range(16), range(20, 28))
    seen = jax.jit(lambda: logits(made, before.params, batch["x"]))()
    top = jnp.sort(seen, -1)
    assert (top[:, -1] - top[:, -2]).min() > 50 and (jnp.argmax(seen, -1) != batch["labels"]).any()
    objective, phi = made.objective, after.meta_params

    @jax.jit
    def expected():
        weights = objective.rank_weights(phi)[0, batch["labels"]][:, None]
        given, predicted = (jax.nn.one_hot(k, 3) for k in (batch["labels"], jnp.argmax(seen, -1)))
        target, x = weights * given + (1 - weights) * predicted, strong(None, batch["x"])
        target, x = (0.8 * v + 0.2 * v[partner] for v in (target, x))
        z = logits(made, before.params, x) + objective.margins(phi)[None]
        return -(target * jax.nn.log_softmax(z)).sum(-1).mean()

    np.testing.assert_allclose(info.scalars["loss"], expected(), rtol=1e-4)


def test_without_corrector_and_with_margins_of_0_an_epoch_is_supervised_training(small):
    made = small(weak=weak, strong=strong, corrector=False, meta_lr=0.0, fine_tune=False)
    net = made.state.meta_params["margin"]["margin_net"]
    net["dense_2"] = jax.tree.map(jnp.zeros_like, net["dense_2"])
    assert [len(stage.passes) for stage in made.method.stages] == [1, 1]
    (learn,) = made.method.stages[1].passes
    loss = make_loss("ce", {}, epochs=1, class_counts=np.array([20, 20, 20]))
    plain = supervised(
        made.network,
        loss,
        made.optimizer,
        strong,
        example=jnp.zeros((16, 2)),
        num_examples=60,
        batch_size=16,
        epochs=1,
    )
    ours = learn.prepare(made.state, jax.random.normal(KEY, (60, 3)), KEY, jnp.int32(2))
    order = learn.order(ours, KEY, jnp.int32(2))
    assert order.index.shape == (3, 16) and order.where.sum() == 45
    theirs = ours._replace(meta_params={}, meta_opt_state={}, memory={})
    step, plain_step = jax.jit(learn.step), jax.jit(plain.stages[0].passes[0].step)
    for rows, where, meta_rows in zip(*order, strict=True):
        batch = at(made, rows, where)
        ours, info = step(ours, batch, at(made, meta_rows), KEY, jnp.int32(2))
        theirs, told = plain_step(theirs, batch, None, KEY, jnp.int32(2))
        np.testing.assert_allclose(info.scalars["loss"], told.scalars["loss"], rtol=1e-5)
    assert_close(
        (ours.params, ours.opt_state, ours.network_state),
        (theirs.params, theirs.opt_state, theirs.network_state),
        rtol=1e-5,
    )


def test_adam_of_the_margins_counts_from_the_first_meta_step(small):
    made = small(weak=weak, strong=strong)
    apart = build_method._apart(optax.adam(0.1), made.objective)
    made.state = made.state._replace(meta_opt_state=apart.init(made.state.meta_params))
    step = _dynamic_loss.warm_up_step(
        made.network, made.objective, made.optimizer, apart, strong, fit_steps=10
    )
    after, _ = jax.jit(step)(made.state, at(made, range(16)), None, KEY, jnp.int32(0))

    def count(part):
        states = after.meta_opt_state.inner_states[part]
        return int(optax.tree.get(states, "count"))

    assert (count("corrector"), count("margin")) == (1, 0)
