"""Recorder of training dynamics for anyone's training loop, in NumPy alone.

A network learns right labels first and wrong ones later, so what it predicts of its own training
examples on the way says which labels are wrong (Liu et al. 2020, arXiv 2007.00151). `Recorder` sums
these predictions in a few parts of the training; its memory does not grow with the epochs. The
package's own trainer keeps the same sums on the device (`jaxrobust.training.dynamics`).

Symbols: N examples, K classes, P parts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxrobust.errors import check

SLOTS = 8  # parts kept while the number of epochs is not known
FRACTIONS = (8, 4, 2, 1)  # beginnings of a training that are read: an eighth, a quarter, ...
SUM_TOLERANCE = 0.02  # by how far a row of rounded probabilities may miss one


def ends(slots: int, parts: int) -> np.ndarray:
    """Returns int [P], after how many of `slots` equal slots each of `parts` beginnings ends.

    Each beginning is twice as long as the one before; the last is the whole training.
    """
    return np.array([max(i + 1, slots * 2 ** (i + 1) // 2**parts) for i in range(parts)])


class Recorder:
    """Sums of the predictions that a training makes of its own examples.

    Three lines in a loop of any framework:

        recorder = Recorder(num_examples, num_classes)
        ...
        recorder.update(index, logits)          # in every step, or once per epoch for all
        ...
        found = find_label_issues(labels, recorder=recorder)

    The predictions are those of the training step itself (before its update), or those of the
    network after each epoch. They must not be those of the finished network alone: by then it has
    learned the wrong labels too.

    Args:
      num_examples: N.
      num_classes: K.
      epochs: how many times each example will be recorded, if that is known. Then the parts are
        those of the package's own trainer; else they are merged in pairs as the epochs double.

    Raises:
      UserError: fewer than one example, two classes or one epoch.

    Example:
      >>> recorder = Recorder(3, 2)
      >>> for epoch in range(4):
      ...     recorder.update([0, 1, 2], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
      >>> recorder.probabilities.shape
      (3, 3, 2)
    """

    def __init__(self, num_examples: int, num_classes: int, *, epochs: int | None = None) -> None:
        check(num_examples >= 1, f"Recorder: num_examples={num_examples}, must be at least 1.")
        check(num_classes >= 2, f"Recorder: num_classes={num_classes}, must be at least 2.")
        check(epochs is None or epochs >= 1, f"Recorder: epochs={epochs}, must be at least 1.")
        self.num_examples, self.num_classes, self.epochs = num_examples, num_classes, epochs
        slots = SLOTS if epochs is None else _parts(num_examples, num_classes, epochs)
        self._met = np.zeros(num_examples, np.int64)  # times that each example was recorded
        self._count = np.zeros((num_examples, slots), np.float32)
        self._sum = np.zeros((num_examples, slots, num_classes), np.float32)
        self._width = 1  # epochs per slot while `epochs` is not known

    def update(self, index: Any, predictions: Any, *, logits: bool | None = None) -> None:
        """Adds predictions of some examples.

        Args:
          index: int [B], rows of the examples, 0 to N - 1.
          predictions: [B, K], probabilities or logits; a NumPy, JAX or PyTorch array (also one
            that needs detaching, or bfloat16), or nested lists.
          logits: whether `predictions` are logits; None: rows in [0, 1] that sum to one are
            probabilities, all others logits.

        Raises:
          UserError: shapes that differ, rows outside the data, values that are not finite.
        """
        rows = np.atleast_1d(_array(index)).astype(np.int64)
        values = np.atleast_2d(_array(predictions)).astype(np.float32)
        wanted = (len(rows), self.num_classes)
        check(
            values.shape == wanted,
            f"Recorder.update: predictions of shape {list(values.shape)}; expected "
            f"{list(wanted)}, a row per index and a column per class.",
        )
        inside = (rows >= 0) & (rows < self.num_examples)
        check(
            bool(inside.all()),
            "Recorder.update: index "
            f"{rows[~inside][0] if not inside.all() else ''} is outside 0 to "
            f"{self.num_examples - 1}.",
        )
        p = _probabilities(values, logits)
        slot = self._slots(rows)
        np.add.at(self._count, (rows, slot), 1)
        np.add.at(self._sum, (rows, slot), p)
        np.add.at(self._met, rows, 1)

    def _slots(self, rows: np.ndarray) -> np.ndarray:
        met, slots = self._met[rows], self._count.shape[1]
        if self.epochs is not None:
            s = _equal(self.num_examples, self.epochs, slots)
            part = np.minimum(met, self.epochs - 1) * s // self.epochs
            return np.searchsorted(ends(s, slots), part, side="right")
        while len(met) and met.max() // self._width >= slots:
            self._count = self._count.reshape(self.num_examples, -1, 2).sum(2)
            self._sum = self._sum.reshape(self.num_examples, -1, 2, self.num_classes).sum(2)
            empty = ((0, 0), (0, slots - slots // 2))
            self._count = np.pad(self._count, empty)
            self._sum = np.pad(self._sum, (*empty, (0, 0)))
            self._width *= 2
        return met // self._width

    @property
    def probabilities(self) -> np.ndarray:
        """float32 [N, P, K], mean prediction over P beginnings of the training, each twice as long
        as the one before (an eighth, a quarter, a half, all); NaN where nothing was recorded.

        Raises:
          UserError: nothing was recorded at all.
        """
        check(
            bool(self._met.any()),
            "The recorder is empty: call update(index, predictions) while training.",
        )
        last = self._ends()
        count = np.cumsum(self._count, axis=1)[:, last - 1, None]
        with np.errstate(invalid="ignore"):
            return np.cumsum(self._sum, axis=1)[:, last - 1] / count

    def _ends(self) -> np.ndarray:
        if self.epochs is not None:
            return np.arange(1, self._count.shape[1] + 1)
        used = int(np.flatnonzero(self._count.any(axis=0)).max()) + 1
        return np.unique([max(1, round(used / part)) for part in FRACTIONS])

    def keras_callback(self, x: Any, *, batch_size: int = 256) -> Any:
        """Returns a Keras callback that records the predictions of `x` after every epoch.

        Args:
          x: the N training examples in the order of the labels, as `model.predict` takes them.
          batch_size: examples per call of `model.predict`.

        Raises:
          ImportError: Keras is not installed.
        """
        import keras

        recorder = self

        class RecordDynamics(keras.callbacks.Callback):
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                predicted = self.model.predict(x, batch_size=batch_size, verbose=0)
                recorder.update(np.arange(recorder.num_examples), predicted)

        return RecordDynamics()


def _parts(num_examples: int, num_classes: int, epochs: int) -> int:
    """Returns P as the trainer has it; see `training.dynamics.parts`."""
    wanted = max((1 << 23) // (num_examples * num_classes), 1)
    return next(p for p in (4, 2, 1) if p <= wanted and p <= epochs)


def _equal(num_examples: int, epochs: int, parts: int) -> int:
    """Returns S as the trainer has it; see `training.dynamics.parts`."""
    return max(min(epochs, 32, (1 << 24) // num_examples) // parts, 1) * parts


def _array(values: Any) -> np.ndarray:
    """Returns an array of any framework on the host, with a type that NumPy knows."""
    if hasattr(values, "detach"):  # PyTorch
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
        return values.numpy()
    found = np.asarray(values)
    check(found.dtype != object, "Recorder.update: ragged lists; expected rows of equal length.")
    return found


def _probabilities(values: np.ndarray, logits: bool | None) -> np.ndarray:
    finite = np.isfinite(values) | (np.isneginf(values) & (logits is not False))
    check(bool(finite.all()), "Recorder.update: predictions hold NaN or infinity.")
    if logits is None:
        bounded = bool((values >= 0).all() and (values <= 1).all())
        near = np.abs(values.sum(1) - 1) <= SUM_TOLERANCE
        check(
            not bounded or bool(near.all()) or not bool(near.any()),
            "Recorder.update: some rows sum to one and others do not; pass logits=True or False.",
        )
        logits = not (bounded and bool(near.all()))
    if logits:
        values = np.exp(values - values.max(1, keepdims=True))
    return values / np.maximum(values.sum(1, keepdims=True), 1e-12)
