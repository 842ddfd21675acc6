"""Label noise: transition matrices, labels drawn from them, instance-dependent noise.

Matrices are row-stochastic, `T[true, given] = P(given | true)`, float64 [K, K]. (cleanlab's
`noise_matrix` is the transpose, `[given, true]`.) N examples, K classes, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxrobust import files
from jaxrobust.data import flip_maps
from jaxrobust.data.statistics import moments
from jaxrobust.errors import UserError, check, choose

MATRIX_KINDS = (
    "none symmetric symmetric_exclusive uniform_by_class_size asymmetric pair_flip matrix"
).split()
KINDS = (*MATRIX_KINDS, "instance")


def transition_matrix(
    kind: str,
    rate: float,
    num_classes: int,
    *,
    class_counts: np.ndarray | None = None,
    flip_map: Mapping[int, int] | None = None,
    matrix: np.ndarray | str | None = None,
) -> np.ndarray:
    """Returns T, row-stochastic float64 [K, K], `T[true, given]`.

    With r the rate, I the identity and pi the class shares (class_counts / sum):

    - `symmetric`: (1-r) I + r/K. May redraw the true class: r (1 - 1/K) of the labels change.
    - `symmetric_exclusive`: 1-r on the diagonal, r/(K-1) elsewhere. A share r changes.
    - `uniform_by_class_size`: (1-r) I + r 1 pi^T. r (1 - sum pi^2) of the labels change.
    - `asymmetric`: class c becomes flip_map[c] with probability r; other classes are clean.
    - `pair_flip`: class c becomes c+1 (the last one 0) with probability r.
    - `matrix`: a given T; the rate is then 0.

    Args:
      kind: one of the above, or none.
      rate: r, in [0, 1).
      num_classes: K.
      class_counts: int [K], sizes of the true classes, for `uniform_by_class_size`.
      flip_map: class -> class it is mistaken for; by default CIFAR-10's map if K = 10 and
        CIFAR-100's (the next class of the super-class) if K = 100.
      matrix: T itself or the name of a .npy or .csv file that holds it.

    Raises:
      UserError: a rate outside [0, 1), an argument that the kind needs and has not, a matrix
        that is not row-stochastic [K, K].

    Example:
      >>> print(transition_matrix("pair_flip", 0.25, 2))
      [[0.75 0.25]
       [0.25 0.75]]
    """
    choose("label noise", kind, MATRIX_KINDS)
    check(0 <= rate < 1, f"Noise rate {rate:g} is outside [0, 1).")
    identity = np.eye(num_classes)
    if kind == "none":
        return identity
    if kind == "symmetric":
        return (1 - rate) * identity + rate / num_classes
    if kind == "symmetric_exclusive":
        return (1 - rate) * identity + rate / (num_classes - 1) * (1 - identity)
    if kind == "uniform_by_class_size":
        check(class_counts is not None, "Noise by class size needs class_counts.")
        shares = np.asarray(class_counts, np.float64)
        check(shares.shape == (num_classes,), "class_counts must have one entry a class.")
        return (1 - rate) * identity + rate * (shares / shares.sum())[None, :]
    if kind == "pair_flip":
        return (1 - rate) * identity + rate * np.roll(identity, 1, axis=1)
    if kind == "asymmetric":
        return _flipped(rate, num_classes, flip_map)
    check(matrix is not None, "Noise kind 'matrix' needs a matrix: a .npy or .csv file.")
    check(rate == 0, "Noise kind 'matrix': the matrix fixes the rate; leave the rate at 0.")
    return _checked(_read(matrix) if isinstance(matrix, str | Path) else matrix, num_classes)


def _flipped(rate: float, num_classes: int, flip_map: Mapping[int, int] | None) -> np.ndarray:
    if flip_map is None:
        known = {10: flip_maps.CIFAR10_FLIPS, 100: flip_maps.CIFAR100_FLIPS}
        check(num_classes in known, "Asymmetric noise needs flip_map: class -> class.")
        flip_map = known[num_classes]
    matrix = np.eye(num_classes)
    for true, given in flip_map.items():
        inside = 0 <= true < num_classes and 0 <= given < num_classes
        check(inside, f"flip_map: {true}->{given} is outside 0..{num_classes - 1}.")
        matrix[true, true] -= rate
        matrix[true, given] += rate
    return matrix


def _read(path: str | Path) -> np.ndarray:
    check(Path(path).is_file(), f"No noise matrix {str(path)!r}.")
    if Path(path).suffix == ".npy":
        return files.read_npy(path, "Noise matrix ")
    try:
        return np.loadtxt(path, delimiter=",", ndmin=2, encoding="utf-8-sig")
    except ValueError as error:
        raise UserError(f"Noise matrix {path} cannot be read: {error}") from None


def _checked(matrix: np.ndarray, num_classes: int, tolerance: float = 1e-6) -> np.ndarray:
    matrix = np.asarray(matrix, np.float64)
    check(
        matrix.shape == (num_classes, num_classes),
        f"The noise matrix is {list(matrix.shape)}; {num_classes} classes need "
        f"[{num_classes}, {num_classes}].",
    )
    check(bool((matrix >= 0).all()), "The noise matrix has entries that are negative or NaN.")
    rows, columns = matrix.sum(1), matrix.sum(0)
    wrong = np.flatnonzero(np.abs(rows - 1) > tolerance)
    if len(wrong):
        hint = (
            " Its columns do: transpose it (rows are true classes, as T[true, given])."
            if np.allclose(columns, 1, atol=1e-6)
            else ""
        )
        raise UserError(
            f"Row {wrong[0]} of the noise matrix sums to {rows[wrong[0]]:g}, not to 1.{hint}"
        )
    return matrix / rows[:, None]


def corrupt(labels: jax.Array, matrix: jax.Array, key: jax.Array) -> jax.Array:
    """Draws a given label for every true one: P(given | true) = matrix[true, given].

    Pure and traceable. The class is found by bisecting the cumulative row, so that memory is
    O(N + K^2) and not O(N K). A class of probability 0 is never drawn.

    Args:
      labels: int [N], true labels in 0 ... K-1.
      matrix: [K, K], row-stochastic `T[true, given]`.
      key: JAX random key.

    Returns:
      int32 [N], given labels.

    Raises:
      UserError: other shapes or types; and unless they are traced (inside jit, where only shapes
        and types are known), labels outside 0 ... K-1 or a matrix that is not row-stochastic.
    """
    labels, matrix = (_as_array(a) for a in (labels, matrix))
    check(
        matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] and matrix.dtype.kind in "fiu",
        f"The noise matrix must be numbers [K, K]; got {matrix.dtype} {list(matrix.shape)}.",
    )
    if not isinstance(matrix, Tracer):
        _checked(matrix, len(matrix), tolerance=1e-2)  # rows are normalized below
    _check_labels(labels, len(matrix))
    return _corrupt(labels, matrix, key)


def _as_array(values: Any) -> Any:
    return values if isinstance(values, jax.Array) else np.asarray(values)


def _check_labels(labels: Any, num_classes: int) -> None:
    """Raises `UserError` unless labels are whole numbers [N] in 0 ... K-1 (traced: [N])."""
    check(
        labels.ndim == 1 and labels.dtype.kind in "iu",
        f"Labels must be whole numbers [N]; got {labels.dtype} {list(labels.shape)}.",
    )
    if isinstance(labels, Tracer):
        return
    labels = np.asarray(labels)
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise UserError(
            f"Label {wrong[0]} (from 0) is {labels[wrong[0]]}; {num_classes} classes are numbered "
            f"0..{num_classes - 1}."
        )


@jax.jit
def _corrupt(labels: jax.Array, matrix: jax.Array, key: jax.Array) -> jax.Array:
    labels, matrix = jnp.asarray(labels, jnp.int32), jnp.asarray(matrix, jnp.float32)
    num_classes = matrix.shape[0]
    cumulative = jnp.cumsum(matrix, axis=1)
    cumulative = cumulative / cumulative[:, -1:]  # ends at exactly 1, above every draw
    draw = jax.random.uniform(key, labels.shape, jnp.float32)
    given = jnp.zeros(labels.shape, jnp.int32)
    for bit in reversed(range(num_classes.bit_length())):
        further = given + (1 << bit)
        below = cumulative[labels, jnp.minimum(further, num_classes) - 1] <= draw
        given = jnp.where(below & (further < num_classes), further, given)
    return given


def instance_dependent(
    x: np.ndarray,
    labels: np.ndarray,
    rate: float,
    num_classes: int,
    key: jax.Array,
    *,
    spread: float = 0.1,
) -> np.ndarray:
    """Draws labels whose errors depend on the example (part-dependent noise).

    Example n gets a flip rate q_n from a normal of mean `rate` and deviation `spread`,
    truncated to [0, 1]; with W_c in R^{D x K} standard normal for each class c, it takes class
    k != y with probability q_n softmax_k(x_n W_y) (over k != y) and keeps y with 1 - q_n.

    Args:
      x: [N, ...], images or features; standardized here (images by channel).
      labels: int [N], true labels y.
      rate: mean flip rate before truncation, in [0, 1).
      num_classes: K.
      key: JAX random key.
      spread: standard deviation of the flip rates.

    Returns:
      int32 [N], given labels.

    Raises:
      UserError: a rate outside [0, 1); x and labels of different length; labels that are no whole
        numbers in 0 ... K-1; examples that are no finite numbers.

    References:
      Xia et al. 2020, algorithm 2 (https://arxiv.org/abs/2006.07836).
    """
    check(0 <= rate < 1, f"Noise rate {rate:g} is outside [0, 1).")
    x, labels = np.asarray(x), np.asarray(labels)
    _check_labels(labels, num_classes)
    check(num_classes >= 2, f"Label noise needs two classes; num_classes={num_classes}.")
    check(
        x.ndim >= 2 and x.dtype.kind in "biuf",
        f"Examples must be numbers [N, ...]; got {x.dtype} {list(x.shape)}.",
    )
    check(len(x) == len(labels), f"{len(x)} examples but {len(labels)} labels.")
    finite = x.dtype.kind != "f" or bool(np.isfinite(x).all())
    check(finite, "Examples hold NaN or infinity.")
    rate_key, draw_key, weight_key = (jax.random.fold_in(key, i) for i in range(3))
    ends = ((end - rate) / spread for end in (0.0, 1.0))
    normal = jax.random.truncated_normal(rate_key, *ends, labels.shape, jnp.float32)
    flip_rate = np.clip(rate + spread * np.asarray(normal), 0, 1)
    draw = np.asarray(jax.random.uniform(draw_key, labels.shape, jnp.float32))
    mean, deviation = (v.astype(np.float32) for v in moments(x))
    given = np.array(labels, np.int32)
    for y in np.unique(labels):
        rows = np.flatnonzero(labels == y)
        features = ((x[rows] - mean) / deviation).reshape(len(rows), -1)
        weights = jax.random.normal(
            jax.random.fold_in(weight_key, int(y)), (features.shape[1], num_classes), jnp.float32
        )
        flips = draw[rows] < flip_rate[rows]
        # Given that a label flips, draw / flip_rate is uniform again and picks the class.
        again = draw[rows[flips]] / flip_rate[rows[flips]]
        given[rows[flips]] = _pick(features[flips] @ np.asarray(weights), y, again)
    return given


def _pick(logits: np.ndarray, true: int, draw: np.ndarray) -> np.ndarray:
    """Draws a class other than `true` from softmax(logits [n, K]) with draws in [0, 1)."""
    logits[:, true] = -np.inf
    shares = np.exp(logits - logits.max(1, keepdims=True))
    cumulative = np.cumsum(shares, axis=1)
    cumulative /= cumulative[:, -1:]
    draw = np.minimum(draw, np.nextafter(np.float32(1), np.float32(0)))
    return (cumulative <= draw[:, None]).sum(1)
