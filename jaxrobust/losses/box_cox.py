"""Two elementary functions with a removable singularity, right in value and every derivative.

Both divide by a hyper-parameter that may be zero. First derivatives are in closed form: shorter
than what automatic differentiation makes of the guarded quotient, and free of cancellation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

_NEAR = 0.2  # |y| below which a slope comes from its series, cut off at 1e-17
_EXPM1_SLOPE = [1 / (math.factorial(n) * (n + 2)) for n in range(13)]
_LOG1P_SLOPE = [(-1) ** (n + 1) * (n + 1) / (n + 2) for n in range(24)]


@jax.custom_jvp
def box_cox(log_x: jax.Array, q: jax.Array) -> jax.Array:
    """Box-Cox transform (x^q − 1)/q from log x; log x at q = 0. Also log_t of x, t = 1 − q."""
    return log_x * _ratio(jnp.expm1, q * log_x)


def _box_cox_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    log_x, q = primals
    y = q * log_x
    slopes = (lambda: jnp.exp(y), lambda: log_x**2 * _expm1_slope(y))
    return box_cox(log_x, q), _tangent(slopes, tangents, y)


box_cox.defjvp(_box_cox_jvp, symbolic_zeros=True)


@jax.custom_jvp
def log_tempered_exp(x: jax.Array, c: jax.Array) -> jax.Array:
    """log exp_t(x) = log(1 + c x)/c with c = 1 − t, for c x > −1; x at c = 0."""
    return x * _ratio(jnp.log1p, c * x)


def _log_tempered_exp_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    x, c = primals
    y = c * x
    slopes = (lambda: 1 / (1 + y), lambda: x**2 * _log1p_slope(y))
    return log_tempered_exp(x, c), _tangent(slopes, tangents, y)


log_tempered_exp.defjvp(_log_tempered_exp_jvp, symbolic_zeros=True)


def _ratio(function: Callable, y: jax.Array) -> jax.Array:
    """function(y)/y, one at zero."""
    zero = jnp.abs(y) < jnp.finfo(y.dtype).tiny
    safe = jnp.where(zero, 1, y)
    return jnp.where(zero, 1, function(safe) / safe)


def _expm1_slope(y: jax.Array) -> jax.Array:
    """Derivative of expm1(y)/y."""
    near = jnp.abs(y) < _NEAR
    far = jnp.where(near, 1, y)
    direct = (1 + (far - 1) * jnp.exp(far)) / far**2
    return jnp.where(near, _polynomial(_EXPM1_SLOPE, jnp.where(near, y, 0)), direct)


def _log1p_slope(y: jax.Array) -> jax.Array:
    """Derivative of log1p(y)/y."""
    near = jnp.abs(y) < _NEAR
    far = jnp.where(near, 1, y)
    direct = (far / (1 + far) - jnp.log1p(far)) / far**2
    return jnp.where(near, _polynomial(_LOG1P_SLOPE, jnp.where(near, y, 0)), direct)


def _polynomial(coefficients: Sequence[float], x: Any) -> jax.Array:
    total = jnp.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def _tangent(slopes: Sequence[Callable], tangents: Any, like: Any) -> jax.Array:
    """Σ slope · tangent over those arguments that are differentiated at all."""
    total = jnp.zeros_like(like)
    for slope, tangent in zip(slopes, tangents, strict=True):
        if not isinstance(tangent, SymbolicZero):
            total = total + slope() * tangent
    return total
