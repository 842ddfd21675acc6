"""The training loop: epochs, passes and steps, compiled and resumable.

How a batch becomes a step: a pass gives the epoch's order (`Order`), `take` gathers the rows, the
method's step turns state and batch into the next state, `dynamics.record` keeps what was seen of
each example, and `_add` sums what is reported. These are one compiled function: a whole epoch of
it (`lax.scan`), or one step, called in a loop, where that is faster or the data is streamed from
the host. Nothing is read back within an epoch.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.data import batches
from jaxrobust.errors import RunError
from jaxrobust.methods.method import Method, Pass, Stage, StepInfo, TrainState
from jaxrobust.training import average, dynamics, label_wave
from jaxrobust.training.programs import shared_jit
from jaxrobust.training.sharding import ONE_DEVICE, Layout


class Feed(NamedTuple):
    """The data as the loop needs it.

    Attributes:
      arrays: dictionary of device arrays [N, ...]; holds "labels" (given), and "x" unless streamed.
      host_x: examples that are streamed, or None.
      truth: int32 [N] true labels, only for reporting, never handed to a method; or None.
      threads: that read and decode while streaming.
    """

    arrays: dict[str, jax.Array]
    host_x: Any = None
    truth: jax.Array | None = None
    threads: int = 2


@dataclasses.dataclass
class Place:
    """Progress of a run: all that a checkpoint holds besides the arrays.

    `sums` are those of the epoch's passes so far, by name; on the device while it lasts. `changes`
    are the fractions of predictions that changed, by epoch, since the network was last fresh. The
    selected epoch and value are lists with an entry per seed where several are trained at once.
    """

    epoch: int = 0
    pass_index: int = 0
    position: int = 0
    sums: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    selected_epoch: Any = 0
    selected_value: Any = None
    changes: list[float] = dataclasses.field(default_factory=list)


def _check_place(stage: Stage, place: Place) -> None:
    """Raises `RunError` unless there is such a place in an epoch of a stage."""
    names = [pass_.name for pass_ in stage.passes]
    begun = names[: place.pass_index + (place.position > 0)]
    if place.pass_index >= len(names) or not place.sums.keys() >= set(begun):
        raise RunError(
            f"The checkpoint says it is in pass {place.pass_index + 1} of epoch {place.epoch + 1}, "
            "of which it has no sums: another version of jaxrobust wrote it."
        )


def _add(
    sums: dict[str, Any],
    info: StepInfo,
    batch: batches.Batch,
    truth: jax.Array | None,
    step: jax.Array,
) -> dict[str, Any]:
    """Adds a step's numbers to the running sums of its pass."""
    where, labels = batch["where"], batch["labels"]
    predicted = jnp.argmax(info.logits, -1)
    count = jnp.sum(where)
    scalars = {f"train_{name}": value for name, value in info.scalars.items()}
    finite = functools.reduce(jnp.logical_and, [jnp.isfinite(v).all() for v in scalars.values()])
    sums = dict(sums)
    for name, value in scalars.items():
        sums[name] += jnp.float32(value) * count
    sums["count"] += count
    sums["train_accuracy"] += jnp.sum(where & (predicted == labels))
    if truth is not None:
        wrong = where & (labels != jnp.take(truth, batch["index"]))
        sums["wrong"] += jnp.sum(wrong)
        sums["memorised"] += jnp.sum(wrong & (predicted == labels))
    sums["bad_step"] = jnp.where((sums["bad_step"] < 0) & ~finite, step, sums["bad_step"])
    return sums


def _no_sums(scalars: dict[str, Any], with_truth: bool) -> dict[str, Any]:
    names = ["count", "train_accuracy", *(f"train_{name}" for name in scalars)]
    names += ["wrong", "memorised"] if with_truth else []
    return {name: jnp.zeros((), jnp.float32) for name in names} | {"bad_step": jnp.int32(-1)}


def means(sums: dict[str, Any]) -> dict[str, float]:
    """Turns the sums of a pass into the numbers of a row."""
    sums = {name: float(value) for name, value in sums.items()}
    count, wrong = max(sums.pop("count"), 1.0), sums.pop("wrong", 0.0)
    sums.pop("bad_step")
    row = {}
    if "memorised" in sums:
        memorised = sums.pop("memorised")
        row["memorised"] = memorised / wrong if wrong else None
    return {name: value / count for name, value in sums.items()} | row


def bad_step(sums: dict[str, Any]) -> int:
    """Returns the first step of a pass whose loss was not finite, or -1; of several seeds, one."""
    return int(np.max(sums["bad_step"]))


class Compiled(NamedTuple):
    """A pass, compiled: `many` runs all its steps, `one` runs step i; `info` is for its shapes."""

    prepare: Callable | None
    order: Callable
    one: Callable
    many: Callable
    info: Callable


def _jit(
    f: Callable[..., Any],
    donate: tuple[int, ...] = (),
    out: Any = None,
    *,
    options: Any,
    layout: Layout,
) -> Callable[..., Any]:
    if layout.mesh is None:
        return shared_jit(f, donate=donate, options=options)
    return jax.jit(f, donate_argnums=donate, out_shardings=out, compiler_options=options)


class PassFunctions(NamedTuple):
    """A pass as pure functions of its keys `(step_key, order_key)`, not compiled.

    Attributes:
      one: `one(keys, state, sums, data, truth, order, epoch, i, streamed)`, step i.
      many: `many(keys, state, sums, data, truth, order, epoch)`, all steps.
      order: `order(keys, state, epoch)`, see `MakeOrder`.
      info: `info(keys, state, data, order, epoch, i, streamed)`, a step's numbers.
    """

    one: Callable
    many: Callable
    order: Callable
    info: Callable


def pass_functions(
    pass_: Pass, epochs: int, layout: Layout = ONE_DEVICE, ema: float | None = None
) -> PassFunctions:
    """Returns the functions of a pass of a training of so many epochs; see `compile_pass`."""

    def step(keys, state, data, order, epoch, i, streamed):
        batch = batches.take(data, order.index[i], order.where[i]) | streamed.get("batch", {})
        meta = None
        if order.meta_index is not None:
            meta = batches.take(data, order.meta_index[i]) | streamed.get("meta", {})
        batch, meta = layout.shard(batch), layout.shard(meta)
        key = jax.random.fold_in(keys[0], state.step)
        after, info = pass_.step(state, batch, meta, key, epoch)
        if "predicted" in state.dynamics:
            info = label_wave.with_changes(state.dynamics["predicted"], batch, info)
        return after, info, batch

    def one(keys, state, sums, data, truth, order, epoch, i, streamed):
        after, info, batch = step(keys, state, data, order, epoch, i, streamed)
        seen = dynamics.record(state.dynamics, batch, info.logits, epoch, epochs)
        mean = average.move(state.average, after, ema) if state.average else {}
        after = after._replace(dynamics=seen, average=mean)
        return after, _add(sums, info, batch, truth, state.step)

    def many(keys, state, sums, data, truth, order, epoch):
        def body(carry, i):
            return one(keys, *carry, data, truth, order, epoch, i, {}), None

        return jax.lax.scan(body, (state, sums), jnp.arange(order.index.shape[0]))[0]

    def order(keys, state, epoch):
        return pass_.order(state, jax.random.fold_in(keys[1], epoch), epoch)

    return PassFunctions(one, many, order, lambda *args: step(*args)[1])


def compile_pass(
    pass_: Pass,
    key: jax.Array,
    epochs: int,
    options: dict[str, str] | None = None,
    layout: Layout = ONE_DEVICE,
    shardings: Any = None,
    ema: float | None = None,
) -> Compiled:
    """Compiles a pass; see `Runner`.

    Args:
      pass_: see `Pass`.
      key: of the pass; steps and orders fold their numbers into it.
      epochs: of the whole training, for the dynamics.
      options: of the compiler.
      layout: of the data over the devices.
      shardings: those of the state, or None for a single device.
      ema: decay of the state's average, if it keeps one.
    """
    step_key, order_key = jax.random.split(key)
    keys = step_key, order_key
    functions = pass_functions(pass_, epochs, layout, ema)
    one, many, order, info = (functools.partial(function, keys) for function in functions)
    out = None if shardings is None else (shardings, layout.copies())
    jit = functools.partial(_jit, options=options, layout=layout)
    one_step, all_steps = jit(one, (0,), out), jit(many, (0, 1), out)
    prepare = None if pass_.prepare is None else jit(pass_.prepare, (0,), shardings)
    return Compiled(prepare, jit(order), one_step, all_steps, info)


class Runner:
    """Runs the epochs of a method over a feed. Keeps its compiled passes."""

    def __init__(
        self,
        method: Method,
        feed: Feed,
        forward: Callable,
        key: jax.Array,
        *,
        loop: str,
        options: dict[str, str] | None = None,
        layout: Layout = ONE_DEVICE,
        ema: float | None = None,
    ):
        self._ema = ema
        self.method, self.feed, self.forward, self.loop = method, feed, forward, loop
        self._key, self._options, self._layout = key, options, layout
        self._compiled: dict[tuple[str, str], Compiled] = {}

    def first_step(
        self, stage: Stage, pass_: Pass, state: TrainState
    ) -> tuple[Callable[[TrainState], TrainState], int]:
        """Returns the first step of a pass, compiled, for a trial; and its steps per epoch.

        `step(state) -> state` uses the memory of its argument again.
        """
        compiled, epoch = self._compile(stage, pass_, state), jnp.int32(0)
        order = compiled.order(state, epoch)
        sums = self._sums(compiled, state, None, order, epoch)
        i, streamed = next(iter(self._steps(order, 0)))
        args = (self.feed.arrays, self.feed.truth, order, epoch, i, streamed)
        return lambda state: compiled.one(state, sums, *args)[0], order.index.shape[-2]

    def _compile(self, stage: Stage, pass_: Pass, state: TrainState) -> Compiled:
        name = (stage.name, pass_.name)
        if name not in self._compiled:
            key = self._pass_key(*name)
            self._compiled[name] = compile_pass(
                pass_,
                key,
                self.method.epochs,
                self._options,
                self._layout,
                self._layout.of(state),
                self._ema,
            )
        return self._compiled[name]

    def _pass_key(self, *names: str) -> jax.Array:
        return self._fold(self._key, zlib.crc32("/".join(names).encode()))

    def _fold(self, key: jax.Array, number: int) -> jax.Array:
        return jax.random.fold_in(key, number)

    def epoch(self, state: TrainState, place: Place, pause: Callable) -> tuple[TrainState, dict]:
        """Runs what is left of an epoch.

        Args:
          state: donated.
          place: progress of the run; where to begin; kept up to date.
          pause: `pause(state, place)`, called after each compiled call within a pass; may save,
            or raise to leave.

        Returns:
          The state, and the row of the epoch's numbers; a later pass's names carry the pass's.

        Raises:
          RunError: a loss that is not finite, with the step it happened in.
        """
        stage = self.method.stage(place.epoch)
        _check_place(stage, place)
        for index, pass_ in enumerate(stage.passes):
            if index < place.pass_index:
                continue
            compiled = self._compile(stage, pass_, state)
            key = self._fold(self._pass_key(stage.name, pass_.name, "prepare"), place.epoch)
            if index == 0 and place.position == 0:
                state = self._start(stage, state, key, place.epoch)
            if place.position == 0 and compiled.prepare is not None:
                logits = self._all_logits(state) if pass_.reads_logits else None
                state = compiled.prepare(state, logits, key, jnp.int32(place.epoch))
            state = self._pass(pass_.name, compiled, state, place, pause)
            place.pass_index, place.position = index + 1, 0
        row = self._row(stage, place)
        place.epoch, place.pass_index, place.sums = place.epoch + 1, 0, {}
        return state, row

    def _row(self, stage: Stage, place: Place) -> dict[str, float]:
        """Reads the numbers of an epoch back: the only time that the host waits for the device."""
        row = {}
        for index, pass_ in enumerate(stage.passes):
            sums = place.sums[pass_.name]
            if bad_step(sums) >= 0:
                raise NonFinite(bad_step(sums), place.epoch)
            prefix = f"{pass_.name}_" if index else ""
            row |= {prefix + name: value for name, value in means(sums).items()}
        return row

    def _start(self, stage: Stage, state: TrainState, key: jax.Array, epoch: int) -> TrainState:
        """Returns where a stage starts from, if it says so and this is its first epoch."""
        begin = stage.start
        if begin is None or not self.method.stage_begins(epoch):
            return state

        def start(state: TrainState, key: jax.Array) -> TrainState:
            fresh = begin(state, key)._replace(dynamics=state.dynamics)
            return fresh._replace(average=average.start(fresh) if state.average else {})

        jit = _jit(start, (0,), self._layout.of(state), options=self._options, layout=self._layout)
        return jit(state, jax.random.split(key)[0])

    def _all_logits(self, state: TrainState) -> jax.Array:
        x = self.feed.host_x if self.feed.host_x is not None else self.feed.arrays["x"]
        return self.forward(state.params, state.network_state, x)

    def _pass(
        self, name: str, compiled: Compiled, state: TrainState, place: Place, pause: Any
    ) -> TrainState:
        feed, epoch = self.feed, jnp.int32(place.epoch)
        order = compiled.order(state, epoch)
        sums = self._sums(compiled, state, place.sums.get(name), order, epoch)
        if self.loop == "epoch" and feed.host_x is None:
            state, place.sums[name] = compiled.many(
                state, sums, feed.arrays, feed.truth, order, epoch
            )
            return state
        for i, streamed in self._steps(order, place.position):
            before = sums
            state, sums = compiled.one(
                state, sums, feed.arrays, feed.truth, order, epoch, i, streamed
            )
            place.position, place.sums[name] = int(i) + 1, sums
            pause(state, place)
            # One step is queued behind the one that runs, so that a signal is heard in time: JAX
            # would take up to 32.
            jax.block_until_ready(before)
        return state

    def _sums(
        self,
        compiled: Compiled,
        state: TrainState,
        saved: dict[str, Any] | None,
        order: batches.Order,
        epoch: jax.Array,
    ) -> dict[str, Any]:
        """Returns the sums of a pass: zero, or where a checkpoint left them."""
        streamed = {}
        if self.feed.host_x is not None:
            first = np.asarray(self.feed.host_x[0])
            groups = {"batch": order.index, "meta": order.meta_index}
            streamed = {
                name: {"x": jax.ShapeDtypeStruct((index.shape[1], *first.shape), first.dtype)}
                for name, index in groups.items()
                if index is not None
            }
        info = jax.eval_shape(
            compiled.info, state, self.feed.arrays, order, epoch, jnp.int32(0), streamed
        )
        sums = self._zeros(info.scalars)
        if saved is not None:
            sums = {n: jnp.asarray(saved[n], v.dtype) for n, v in sums.items()}
        return self._layout.put(sums)

    def _zeros(self, scalars: dict[str, Any]) -> dict[str, jax.Array]:
        return _no_sums(scalars, self.feed.truth is not None)

    def _steps(self, order: batches.Order, start: int) -> Iterator[tuple[np.int32, dict[str, Any]]]:
        """Yields the number of each step left, with its examples where these are streamed."""
        steps = range(start, order.index.shape[-2])
        if self.feed.host_x is None:
            yield from ((np.int32(i), {}) for i in steps)
            return
        groups = {"batch": order.index, "meta": order.meta_index}
        readers = {
            name: batches.stream(self.feed.host_x, np.asarray(index)[start:], self.feed.threads)
            for name, index in groups.items()
            if index is not None
        }
        for i in steps:
            x = {name: {"x": next(reader)} for name, reader in readers.items()}
            yield np.int32(i), self._layout.put(x)


class NonFinite(RunError):
    """A loss that became NaN or infinite."""

    def __init__(self, step: int, epoch: int, whose: str = ""):
        self.step, self.epoch = step, epoch
        super().__init__(
            f"The loss{whose} was not finite at step {step} (epoch {epoch + 1}). "
            "Try a smaller optimizer.learning_rate, or optimizer.clip_norm."
        )

    def add_remedy(self, kept: bool) -> None:
        """Says so if checkpoints from before the step were kept."""
        if kept:
            self.args = (f"{self} The last checkpoint before it was kept.",)
