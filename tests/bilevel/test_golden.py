"""One look-ahead step and its meta-gradient, against numbers of the papers' own programs."""

import itertools

import jax
import numpy as np
import optax
import pytest

from jaxrobust import losses
from jaxrobust.bilevel import hypergradient
from jaxrobust.bilevel.step import make_bilevel
from jaxrobust.objectives import curve_weighted, dynamic_loss

DYNAMIC_NAMES = {
    "rank_feature_emb": "corrector/rank_embedding",
    "cls_feature_emb": "margin/class_embedding",
    **{f"rank_weight_net/{2 * i}": f"corrector/rank_weight_net/dense_{i}" for i in range(3)},
    **{f"margin_generator/{2 * i}": f"margin/margin_net/dense_{i}" for i in range(3)},
}
CURVENET_NAMES = {
    "cls_emb/weight": "class_embedding",
    **{f"before_linear{i + 1}": f"curve_net/dense_{i}" for i in range(3)},
    **{f"linear{i + 1}": f"weight_net/dense_{i}" for i in range(3)},
}
NAMES = {"dynamic": DYNAMIC_NAMES, "curvenet": CURVENET_NAMES}


def rename(method):
    def to_ours(name):
        for source, ours in NAMES[method].items():
            if name.startswith(source):
                return (ours + name.removeprefix(source)).replace("/weight", "/kernel")
        raise KeyError(name)

    return to_ours


def objective_of(method, file, phi, num_classes):
    if method == "dynamic":
        ranks, hidden = phi["corrector"]["rank_embedding"].shape
        objective = dynamic_loss(num_classes, ranks, hidden)
        return objective._replace(observe=None), {
            "rank": file["rank"],
            "pseudo_labels": file["pseudo_labels"],
        }
    hidden = phi["class_embedding"].shape[1]
    return curve_weighted(num_classes, file["curves"].shape[1], hidden), {"curve": file["curves"]}


def apply_of(toy):
    """The reference's layout of parameters and running statistics: l1, bn, l2."""

    def apply(params, state, x, train):
        x = toy.dense(params["l1"], x)
        if "bn" in params:
            x, bn = toy.batch_norm(params["bn"], state["bn"], x, train)
            state = {"bn": bn}
        return toy.dense(params["l2"], jax.nn.relu(x)), state

    return apply


def read_case(golden, nested, toy, method, bn, nesterov):
    name = f"meta_gradient_{method}{'_bn' if bn else ''}{'_nesterov' if nesterov else ''}.npz"
    with np.load(golden(name)) as data:
        file = dict(data)
    params, momentum = nested(file, "params"), nested(file, "momentum")
    state = {}
    if bn:
        statistics = {k: params["bn"].pop(k) for k in ("mean", "var")}
        state = {"bn": statistics}
    optimizer = optax.chain(
        optax.add_decayed_weights(5e-4), optax.trace(0.9, nesterov), optax.scale(-0.1)
    )
    opt_state = optimizer.init(params)
    opt_state = (opt_state[0], opt_state[1]._replace(trace=momentum), opt_state[2])
    phi = nested(file, "meta_params", rename(method))
    num_classes = params["l2"]["bias"].shape[0]
    objective, extra = objective_of(method, file, phi, num_classes)
    batch = {"x": file["x"], "labels": file["labels"], **extra}
    meta_batch = {"x": file["meta_x"], "labels": file["meta_labels"]}
    return file, params, state, optimizer, opt_state, phi, objective, batch, meta_batch


CASES = list(itertools.product(["curvenet", "dynamic"], [False, True], [False, True]))


@pytest.mark.golden
@pytest.mark.parametrize("method,bn,nesterov", CASES)
def test_meta_gradient(golden, nested, toy, x64, method, bn, nesterov):
    case = read_case(golden, nested, toy, method, bn, nesterov)
    file, params, state, optimizer, opt_state, phi, objective, batch, meta_batch = case
    apply = apply_of(toy)

    def inner_loss(params, phi, batch):
        logits = apply(params, state, batch["x"], True)[0]
        return losses.mean(objective.loss(phi, logits, batch))

    def meta_loss(params, batch):
        logits = apply(params, state, batch["x"], True)[0]
        return losses.mean(losses.cross_entropy(logits, batch["labels"]))

    compute = jax.jit(hypergradient(inner_loss, meta_loss, optimizer))
    found = compute(phi, params, opt_state, batch, meta_batch)
    np.testing.assert_allclose(found.inner_loss, file["inner_loss"], rtol=1e-10)
    np.testing.assert_allclose(found.meta_loss, file["meta_loss"], rtol=1e-10)
    expected = nested(file, "lookahead_params")
    expected = {k: {n: expected[k][n] for n in v} for k, v in params.items()}
    assert_close(found.params, expected)
    assert_close(found.grads, nested(file, "meta_grads", rename(method)))


@pytest.mark.golden
@pytest.mark.parametrize("method", ["curvenet", "dynamic"])
def test_the_whole_step_does_the_same(golden, nested, toy, x64, method):
    case = read_case(golden, nested, toy, method, True, True)
    file, params, state, optimizer, opt_state, phi, objective, batch, meta_batch = case
    bilevel = make_bilevel(apply_of(toy), objective, optimizer, optax.sgd(1.0))
    at = jax.jit(bilevel.init)(jax.random.key(0), params, state)
    at = at._replace(meta_params=phi, opt_state=opt_state)
    after, info = jax.jit(bilevel.step)(at, batch, meta_batch)
    np.testing.assert_allclose(info.inner_loss, file["inner_loss"], rtol=1e-10)
    np.testing.assert_allclose(info.meta_loss, file["meta_loss"], rtol=1e-10)
    expected = nested(file, "meta_grads", rename(method))
    assert_close(jax.tree.map(np.subtract, phi, after.meta_params), expected)
    squares = sum(np.sum(g**2) for g in jax.tree.leaves(expected))
    np.testing.assert_allclose(info.meta_grad_norm, np.sqrt(squares), rtol=1e-10)


def assert_close(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
