"""What every loss of the package promises, one loss after the other."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import losses
from jaxrobust.errors import UserError

NAMES = sorted(losses.LOSSES)
BATCH, CLASSES = 5, 4
LABELS = np.array([0, 1, 2, 3, 1])
NEGATIVES = (LABELS[:, None] + np.array([[1, 2, 1]])) % CLASSES
ALL = np.ones(BATCH, bool)
QUICK = {"xla_backend_optimization_level": 0}  # compiles twice as fast
STATIC = ("hard", "num_iters", "num_negatives")
CHOSEN = {  # where the defaults would leave a term out
    "dal": {"q": 1.2, "lamb": 0.4},
    "tce": {"order": 3.0},
    "anl_ce": {"min_prob": 1e-3},
    "anl_fl": {"min_prob": 1e-3},
    "eps_softmax_ce_mae": {"m": 3.0, "eps": 1e-3},
    "eps_softmax_fl_mae": {"m": 3.0, "eps": 1e-3},
}
# The focal factor is a constant for the gradient: what is returned is no derivative in the logits.
STOPPED = ("jal_fl", "anl_fl", "eps_softmax_fl_mae")
NO_DERIVATIVE = ("order",)  # a whole number


def hyper_of(name):
    """The hyper-parameters of a loss that may be traced."""
    parameters = inspect.signature(losses.get(name)).parameters.values()
    numbers = {p.name: p.default for p in parameters if isinstance(p.default, int | float)}
    return {k: v for k, v in (numbers | CHOSEN.get(name, {})).items() if k not in STATIC}


def bind(name, hyper=None):
    """loss(logits, labels, negatives, where) with everything else supplied."""
    loss = functools.partial(losses.get(name), **(hyper_of(name) if hyper is None else hyper))
    if name == "bi_tempered" and "num_iters" not in loss.keywords:
        loss = functools.partial(loss, num_iters=2)  # five compile slowly
    needs = losses.needs(name)
    if "class_counts" in needs:
        loss = functools.partial(loss, class_counts=np.array([40.0, 20.0, 5.0, 0.0]))
    if "key" in needs:
        return lambda z, y, m, where=None: loss(z, y, complementary_labels=m, where=where)
    return lambda z, y, m, where=None: loss(z, y, where=where)


@functools.cache
def compiled(name):
    def total(logits, hyper, labels, negatives, where):
        loss = bind(name, hyper)(logits, labels, negatives, where)
        return jnp.sum(loss), loss

    return jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))


def evaluate(name, logits, labels, where=ALL, negatives=NEGATIVES):
    """Losses and the gradients of their sum to logits and hyper-parameters, all of them traced."""
    hyper = {k: np.float32(v) for k, v in hyper_of(name).items()}
    gradients, loss = compiled(name)(logits, hyper, labels, negatives, where)
    return loss, *gradients


def logits_of(seed=0, scale=2.0, shape=(BATCH, CLASSES)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32) * scale


def labels_of(seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(CLASSES), BATCH).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_signature_is_logits_labels_and_keywords(name):
    first, second, *rest = inspect.signature(losses.get(name)).parameters.values()
    assert (first.name, second.name) == ("logits", "labels")
    assert all(p.kind is p.KEYWORD_ONLY for p in rest)
    assert rest[-1].name == "where" and rest[-1].default is None


@pytest.mark.parametrize("name", NAMES)
def test_a_one_hot_distribution_equals_its_index(name):
    one_hot = np.eye(CLASSES, dtype=np.float32)[LABELS]
    by_index = evaluate(name, logits_of(), LABELS)
    by_distribution = evaluate(name, logits_of(), one_hot)
    assert by_index[0].shape == (BATCH,) and by_index[0].dtype == jnp.float32
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    jax.tree.map(close, by_index, by_distribution)  # not to the bit: XLA fuses them differently


@pytest.mark.parametrize("name", NAMES)
def test_traced_hyper_parameters_equal_plain_numbers(name):
    loss, *_ = evaluate(name, logits_of(), LABELS)
    plain = jax.jit(lambda z: bind(name)(z, LABELS, NEGATIVES), compiler_options=QUICK)(logits_of())
    np.testing.assert_allclose(loss, plain, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_masked_row_changes_nothing_even_if_it_is_nan(name):
    where = np.array([True, False, True, False, True])
    logits, soft = logits_of(), labels_of()
    whole = evaluate(name, logits, soft)
    kept = evaluate(name, logits, soft, where)
    spoilt = np.where(where[:, None], logits, np.nan), np.where(where[:, None], soft, np.nan)
    masked = evaluate(name, *spoilt, where)
    np.testing.assert_array_equal(masked[0], np.where(where, whole[0], 0))
    np.testing.assert_array_equal(masked[1], np.where(where[:, None], whole[1], 0))
    jax.tree.map(np.testing.assert_array_equal, masked, kept)
    unknown = np.where(where, LABELS, -1)
    assert np.isfinite(evaluate(name, spoilt[0], unknown, where)[1]).all()


@pytest.mark.parametrize("name", NAMES)
def test_an_index_outside_the_classes_gives_nan_in_its_row_only(name):
    bad = np.array([-1, 1, 2, CLASSES, 1])
    loss, *_ = evaluate(name, logits_of(), bad)
    np.testing.assert_array_equal(np.isnan(loss), [True, False, False, True, False])


@pytest.mark.parametrize("name", NAMES)
def test_labels_that_no_example_can_have_are_refused_where_they_are_concrete(name):
    z, loss = logits_of(), bind(name)
    with pytest.raises(UserError, match=r"labels must be in 0…3.* row 3 is 4"):
        loss(z, np.array([0, 1, 2, 4, -1]), NEGATIVES)
    with pytest.raises(UserError, match="row 0 is -1"):
        loss(z, np.array([-1, 1, 2, 4, 1]), NEGATIVES, np.array([True, True, True, False, True]))
    with pytest.raises(UserError, match="row 2 sums to 0.5.*swapped"):
        loss(z, np.eye(CLASSES, dtype=np.float32)[LABELS] * [[1], [1], [0.5], [1], [1]], NEGATIVES)
    with pytest.raises(UserError, match="swapped"):
        loss(LABELS, z, NEGATIVES)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.uint16, np.uint32, np.int64])
def test_the_type_of_the_labels_does_not_matter(kind):
    for classes in (100, 300, 40000):
        z = np.random.default_rng(0).normal(size=(3, classes)).astype(np.float32)
        labels = np.array([0, 5, 99])
        for loss in (losses.cross_entropy, losses.mean_absolute_error):
            np.testing.assert_array_equal(loss(z, labels.astype(kind)), loss(z, labels))


# A class less changes these by 1/K or log K; of the others it must not be seen at all.
COUNTS_CLASSES = ("ame", "jal_ce", "jal_fl", "dal")


@pytest.mark.parametrize("lowest", [-np.inf, np.finfo(np.float32).min, -1e9])
@pytest.mark.parametrize("name", NAMES)
def test_a_class_that_is_ruled_out_is_as_if_it_were_not_there(name, lowest):
    labels, negatives = np.array([0, 1, 2, 0, 1]), np.array([[1, 2, 1], [0, 2, 0]] * 3)[:BATCH]
    logits = logits_of()
    ruled_out = np.where(np.arange(CLASSES) == 3, np.float32(lowest), logits)

    def both(z, counts=slice(None)):
        def total(z):
            loss = bind(name)
            if "class_counts" in losses.needs(name):
                loss = functools.partial(
                    losses.get(name),
                    **hyper_of(name),
                    class_counts=np.array([40.0, 20.0, 5.0, 0.0])[counts],
                )
                keywords = {"complementary_labels": negatives} if name == "nlnl" else {}
                value = loss(z, labels, **keywords)
            else:
                value = loss(z, labels, negatives)
            return jnp.sum(value), value

        gradient, value = jax.grad(total, has_aux=True)(z)
        return value, gradient

    eager, compiled = both(ruled_out), jax.jit(both, compiler_options=QUICK)(ruled_out)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), eager, compiled
    )
    assert np.isfinite(eager[0]).all() and np.isfinite(eager[1]).all()
    if name not in COUNTS_CLASSES and lowest < -1e10:
        value, gradient = both(logits[:, :3], slice(3))
        np.testing.assert_allclose(eager[0], value, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(eager[1][:, :3], gradient, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(eager[1][:, 3], 0, atol=1e-5)


EXTREME = np.array(  # the label is 1: certain of it, certain of another, flat, tied
    [[-1e4, 1e4, -1e4, -1e4], [1e4, -1e4, 0, -1e4], [0, 0, 0, 0], [1e4] * 4, [-1e4, 1e4, 1e4, 0]]
)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_extreme_logits_give_finite_losses_and_gradients(name, dtype):
    logits = jnp.asarray(EXTREME, dtype)
    labels, negatives = np.full(BATCH, 1), np.array([[0, 2, 2]] * BATCH)
    loss, gradient, to_hyper = evaluate(name, logits, labels, negatives=negatives)
    assert loss.dtype == jnp.float32 and gradient.dtype == dtype
    for array in (loss, gradient, *to_hyper.values()):
        assert np.isfinite(np.asarray(array, np.float32)).all()
    assert loss[0] < loss[1]


@pytest.mark.parametrize("name", NAMES)
def test_extreme_logits_give_finite_second_derivatives(name):
    def total(logits):
        return jnp.sum(bind(name)(logits, np.full(BATCH, 1), np.array([[0, 2, 2]] * BATCH)))

    along = jax.jit(lambda z, d: jax.jvp(jax.grad(total), (z,), (d,))[1], compiler_options=QUICK)
    for direction in (np.ones_like(EXTREME), logits_of()):
        assert np.isfinite(along(EXTREME.astype(np.float32), direction.astype(np.float32))).all()


@pytest.mark.parametrize("name", NAMES)
def test_any_leading_axes_batches_of_one_and_vmap_agree(name):
    logits, negatives = logits_of(1, shape=(6, CLASSES)), np.tile(NEGATIVES[:1], (6, 1))
    labels = np.array([0, 1, 2, 3, 2, 0])

    @functools.partial(jax.jit, compiler_options=QUICK)
    def every_way(z, y, m):
        loss = bind(name)
        return {
            "batch": loss(z, y, m),
            "grid": loss(z.reshape(2, 3, CLASSES), y.reshape(2, 3), m.reshape(2, 3, -1)),
            "vmap": jax.vmap(loss)(z, y, m),
            "one": loss(z[:1], y[:1], m[:1]),
            "alone": loss(z[0], y[0], m[0]),
        }

    got = every_way(logits, labels, negatives)
    shapes = {"batch": (6,), "grid": (2, 3), "vmap": (6,), "one": (1,), "alone": ()}
    assert {way: array.shape for way, array in got.items()} == shapes
    for way in ("grid", "vmap", "one", "alone"):
        array = np.ravel(got[way])
        np.testing.assert_allclose(array, got["batch"][: array.size], rtol=2e-6, atol=2e-6)


STEEP = ("anl_ce", "eps_softmax_fl_mae")  # divided by log probabilities near their clamp


@pytest.mark.parametrize("name", NAMES)
def test_first_and_second_derivatives_equal_finite_differences(name, x64):
    """In float64, along one direction in logits, label distribution and hyper-parameters."""
    rng = np.random.default_rng(2)
    labels = 0.6 * rng.dirichlet(np.ones(CLASSES), BATCH) + 0.1  # away from their boundary
    hyper = {k: np.float64(v) for k, v in hyper_of(name).items()}
    point = (rng.normal(size=(BATCH, CLASSES)), labels, hyper)
    direction = jax.tree.map(lambda x: rng.normal(size=np.shape(x)), point)
    direction[2].update({k: 0.0 for k in NO_DERIVATIVE if k in hyper})
    if name in STOPPED:
        direction = (np.zeros_like(point[0]), *direction[1:])

    @functools.partial(jax.jit, compiler_options=QUICK)
    def at(step):
        def value(point):
            logits, labels, hyper = point
            return jnp.sum(bind(name, hyper)(logits, labels, NEGATIVES) * np.arange(1.0, 6.0))

        def slope(point):
            gradient = jax.tree.leaves(jax.grad(value)(point))
            return sum(map(jnp.vdot, gradient, jax.tree.leaves(direction)))

        here = jax.tree.map(lambda x, d: x + step * d, point, direction)
        return value(here), *jax.jvp(slope, (here,), (direction,))

    (before, slope_before, _), (_, slope, curvature), (after, slope_after, _) = map(
        at, (-1e-5, 0.0, 1e-5)
    )
    exact = 2e-5 if name in STEEP else 1e-6
    np.testing.assert_allclose(slope, (after - before) / 2e-5, rtol=exact, atol=1e-6)
    np.testing.assert_allclose(
        curvature,
        (slope_after - slope_before) / 2e-5,
        rtol=50 * exact if name in STEEP else 1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("name", NAMES)
def test_shapes_that_do_not_fit_raise_and_are_named(name):
    loss, z = bind(name), logits_of()
    with pytest.raises(UserError, match=r"\[5\].*\[5, 4\].*\[5, 1\]"):
        loss(z, LABELS[:, None], NEGATIVES)
    with pytest.raises(UserError, match=r"\[5, 4\].*\[5, 3\]"):
        loss(z, np.ones((5, 3), np.float32), NEGATIVES)
    with pytest.raises(UserError, match=r"where.*\[5\].*\[5, 4\].*\[5, 1\]"):
        loss(z, LABELS, NEGATIVES, np.ones((BATCH, 1), bool))
    with pytest.raises(UserError, match="where must be bool"):
        loss(z, LABELS, NEGATIVES, np.ones(BATCH, np.float32))
    with pytest.raises(UserError, match="bool"):
        loss(z, ALL, NEGATIVES)
    with pytest.raises(UserError, match=r"int32\[5, 4\]"):
        loss(z.astype(np.int32), LABELS, NEGATIVES)
    with pytest.raises(UserError, match=r"\[5, 1\]"):
        loss(z[:, :1], LABELS, NEGATIVES)


@pytest.mark.parametrize("name", [name for name in NAMES if hyper_of(name)])
def test_hyper_parameters_are_single_numbers(name):
    for keyword in hyper_of(name):
        with pytest.raises(UserError, match=rf"{keyword} must be one number; got shape \[5\]"):
            bind(name, hyper_of(name) | {keyword: np.ones(5)})(logits_of(), LABELS, NEGATIVES)


OUT_OF_RANGE = [
    ("gce", "q", -0.1, "at least 0"),
    ("dal", "q", -0.1, "at least 0"),
    ("dal", "lamb", -1, "at least 0"),
    ("tce", "order", 0, "at least 1"),
    ("agce", "a", -1.0, "at least 0"),
    ("js", "pi", 0.0, "above 0 and below 1"),
    ("js", "pi", 1.0, "above 0 and below 1"),
    ("bi_tempered", "t1", 2.0, "at least 0 and below 2"),
    ("bi_tempered", "t2", 0.9, "at least 1"),
    ("bi_tempered", "num_iters", 0, "at least 1"),
    ("ce_sr", "tau", 0.0, "above 0"),
    ("ce_sr", "p", 0.0, "above 0"),
    ("ce_sr", "lamb", -1.0, "at least 0"),
    ("ldam", "scale", 0.0, "above 0"),
    ("focal", "gamma", -1.0, "at least 0"),
    ("ame", "q", 0.5, "at least 1"),
    ("jal_ce", "a", -1.0, "at least 0"),
    ("jal_fl", "gamma", -1.0, "at least 0"),
    ("anl_ce", "min_prob", 0.0, "above 0 and below 1"),
    ("anl_fl", "min_prob", 1.0, "above 0 and below 1"),
    ("eps_softmax_ce_mae", "m", -1.0, "at least 0"),
    ("eps_softmax_fl_mae", "eps", 0.0, "above 0 and below 1"),
]


@pytest.mark.parametrize(("name", "keyword", "value", "wanted"), OUT_OF_RANGE)
def test_a_plain_number_out_of_range_raises(name, keyword, value, wanted):
    with pytest.raises(UserError, match=f"{keyword} must be .*{wanted}.*{value}"):
        bind(name, hyper_of(name) | {keyword: value})(logits_of(), LABELS, NEGATIVES)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([["a"], ["b"]])[:, 0], "labels must be an array of numbers; got <U1"),
        (None, "labels must be an array of numbers; got NoneType"),
        (np.array([[1.5, -0.5, 0.0], [1.0, 0.0, 0.0]]), "must not be negative; row 0 is"),
    ],
)
def test_labels_of_other_kinds_are_refused(labels, message):
    with pytest.raises(UserError, match=message):
        losses.cross_entropy(np.zeros((2, 3), np.float32), labels)


def test_a_loss_is_named_by_a_text():
    with pytest.raises(UserError, match="named by a text, such as 'gce', not None"):
        losses.get(None)
