"""Compiled programs, shared by runs that differ in nothing but their arrays.

A run's step closes over arrays: class sizes, the mean of the images, labels. `jax.jit` builds them
into the program, so that another seed would be compiled anew. Here they become arguments, and a
program that has been compiled in this process is found again by its text.

The alternatives are worse. Arrays handed down by name would be in the signature of every view,
loss, objective and method, a caller's own included. `jax.jit` with the method as a static argument
finds programs by a key that must list all that tracing reads; what is forgotten in it gives one
run the program of another. Text cannot lie: other numbers in the program are another program.
"""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Callable
from typing import Any

import jax
from jax.core import eval_jaxpr

_PROGRAMS: collections.OrderedDict[Any, Any] = collections.OrderedDict()
_KEPT = 128
_compiled = 0


def compiled() -> int:
    """Returns how many programs `shared_jit` has compiled in this process."""
    return _compiled


def shared_jit(
    f: Callable, *, donate: tuple[int, ...] = (), options: dict[str, str] | None = None
) -> Callable:
    """Returns `f` compiled, like `jax.jit(f)`; equal programs are compiled once in a process.

    For one device and pure functions of positional arguments. What `f` closes over is read when
    it is first called with arguments of some shapes; what a `jax.jit` within it closes over stays
    part of the program, which is then another's.

    Args:
      donate: numbers of the arguments whose memory may be reused.
      options: of the compiler.

    Example:
      >>> import jax.numpy as jnp
      >>> add = [shared_jit(lambda x, y=jnp.full(3, y): x + y) for y in (1.0, 2.0)]
      >>> [f(jnp.zeros(3)).tolist() for f in add]
      [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    """
    found: dict[Any, Callable] = {}

    def call(*args: Any) -> Any:
        leaves, structure = jax.tree.flatten(args)
        signature = (structure, *map(jax.typeof, leaves))
        if signature not in found:
            found[signature] = _find(f, args, signature, donate, options)
        return found[signature](*args)

    return call


def _find(
    f: Callable[..., Any], args: Any, signature: Any, donate: tuple[int, ...], options: Any
) -> Callable:
    """Returns the program of `f` for arguments like `args`, compiled now or before."""
    global _compiled
    closed, shapes = jax.make_jaxpr(f, return_shape=True)(*args)
    out = jax.tree.structure(shapes)

    def program(arrays: Any, *args: Any) -> Any:
        return out.unflatten(eval_jaxpr(closed.jaxpr, arrays, *jax.tree.leaves(args)))

    arrays = [jax.numpy.asarray(a) for a in closed.consts]
    lowered = jax.jit(program, donate_argnums=tuple(i + 1 for i in donate)).lower(arrays, *args)
    # The text leaves out arguments that are not used; a program still refuses others for them.
    text = hashlib.sha256(lowered.as_text().encode()).hexdigest()
    types = (*signature, out, *map(jax.typeof, arrays))
    key = (text, types, donate, tuple(sorted((options or {}).items())))
    if key not in _PROGRAMS:
        _compiled += 1
        _PROGRAMS[key] = lowered.compile(options)
    _PROGRAMS.move_to_end(key)
    while len(_PROGRAMS) > _KEPT:
        _PROGRAMS.popitem(last=False)
    compiled = _PROGRAMS[key]
    return lambda *args: compiled(arrays, *args)
