"""The table of metrics: name, direction, format, meaning, and where the function is.

It feeds the table of results, the log, the sweep's table and `eval.select`. Reading it imports
neither NumPy nor JAX.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A number by which a classifier is judged.

    Attributes:
      meaning: one phrase, for the documentation.
      heading: column heading in tables.
      higher_is_better: direction; the selected epoch has the best value, not the largest.
      percent: whether the value is a fraction, shown in percent; else with three decimals.
      location: "package.module:function" of a function from `metrics.Predictions` to a value, or
        to None where it has none; None for what is measured on the training labels
        (`metrics.memorization`), by which no epoch can be selected.
      log: whether the progress lines show it.
      sweep: parameters ("last", "selected") for which the table of a sweep has a column.
    """

    meaning: str
    heading: str
    higher_is_better: bool
    percent: bool = True
    location: str | None = None
    log: bool = False
    sweep: tuple[str, ...] = ()

    @property
    def function(self) -> Callable[..., float | None]:
        """The function, imported when first used."""
        module, name = str(self.location).split(":")
        return getattr(importlib.import_module(module), name)

    def score(self, value: float) -> float:
        """Returns a value such that the higher is the better."""
        return value if self.higher_is_better else -value

    def text(self, value: float | None, deviation: float | None = None, unit: str = "") -> str:
        """Returns a value for a table, with its deviation if given; a dash for None.

        Args:
          value: as the metric's function returns it.
          deviation: over seeds, in the same unit.
          unit: appended to percentages, such as " %".
        """
        if value is None:
            return "–"
        scale, digits = (100, 1) if self.percent else (1, 3)
        shown = f"{scale * value:.{digits}f}"
        if deviation is not None:
            shown += f" ± {scale * deviation:.{digits}f}"
        return shown + unit * self.percent


METRICS = {
    "accuracy": Metric(
        meaning="fraction of correct predictions",
        heading="accuracy",
        higher_is_better=True,
        location="jaxrobust.training.metrics:accuracy",
        log=True,
        sweep=("last", "selected"),
    ),
    "balanced_accuracy": Metric(
        meaning="mean of the per-class accuracies",
        heading="balanced",
        higher_is_better=True,
        location="jaxrobust.training.metrics:balanced_accuracy",
        log=True,
        sweep=("last", "selected"),
    ),
    "top_5_accuracy": Metric(
        meaning="fraction of labels among the five most probable classes, with more than 5 classes",
        heading="top 5",
        higher_is_better=True,
        location="jaxrobust.training.metrics:top_5_accuracy",
    ),
    "many": Metric(
        meaning="mean accuracy of classes with many training examples (eval.many_above)",
        heading="many",
        higher_is_better=True,
        location="jaxrobust.training.metrics:many_accuracy",
    ),
    "medium": Metric(
        meaning="mean accuracy of the classes between many and few",
        heading="medium",
        higher_is_better=True,
        location="jaxrobust.training.metrics:medium_accuracy",
    ),
    "few": Metric(
        meaning="mean accuracy of classes with few training examples (eval.few_below)",
        heading="few",
        higher_is_better=True,
        location="jaxrobust.training.metrics:few_accuracy",
        sweep=("last",),
    ),
    "negative_log_likelihood": Metric(
        meaning="mean of -log p(label)",
        heading="NLL",
        higher_is_better=False,
        percent=False,
        location="jaxrobust.training.metrics:negative_log_likelihood",
    ),
    "expected_calibration_error": Metric(
        meaning="mean |accuracy - confidence| over bins of confidence",
        heading="ECE",
        higher_is_better=False,
        location="jaxrobust.training.metrics:calibration_error",
    ),
    "memorised": Metric(
        meaning="fraction of the wrong training labels that the network predicts",
        heading="memorised",
        higher_is_better=False,
        log=True,
        sweep=("last",),
    ),
}
"""Every metric by its name in results.json and, after `validation_` or `test_`, metrics.jsonl."""

SELECTABLE = tuple(name for name, metric in METRICS.items() if metric.location is not None)
"""Names of the metrics by which an epoch can be selected: `eval.select`."""
