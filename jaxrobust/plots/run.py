"""Figures of a run, as PNG files: learning curves, confusion, per-class accuracy, reliability."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from jaxrobust.training import metrics

BLUE, ORANGE, GREEN, GRAY = "#3465a4", "#d9711c", "#4e8f3a", "#888888"
COLORS = (GRAY, BLUE, ORANGE, GREEN, "#8b5aa8", "#a0522d")  # of runs or methods side by side


def canvas(width: float = 6.4, height: float = 4.0, rows: int = 1, columns: int = 1) -> Any:
    """Returns `(figure, axes)` that belong to no window and no global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns)
    for ax in np.ravel(axes):
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure: Figure, path: Path) -> Path:
    """Writes a figure as PNG; its texts are never read as mathematics: a class may be "$x^$"."""
    with rc_context({"text.usetex": False, "text.parse_math": False}):
        for text in figure.findobj(Text):
            text.set_parse_math(False)
            text.set_usetex(False)
        return _write(figure, path)


def _write(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def write_all(
    folder: Path,
    rows: list[dict[str, Any]],
    test: tuple[np.ndarray, np.ndarray] | None,
    class_names: Sequence[str],
    results: dict[str, Any],
) -> None:
    """Draws everything that a finished run shows; `test`: the test data's logits and labels."""
    save(learning_curves(rows, results), folder / "learning_curves.png")
    if test is not None:
        logits, labels = test
        save(confusion(logits.argmax(-1), labels, class_names), folder / "confusion.png")
        save(
            per_class(
                results["last"]["per_class"],
                class_names,
                results["noise"],
                "agreement" if on_given(results) else "accuracy",
            ),
            folder / "per_class_accuracy.png",
        )
        save(reliability(logits, labels), folder / "reliability.png")


def on_given(results: dict[str, Any]) -> str:
    """Returns " (given labels)" where the test labels may be wrong, else an empty text."""
    return " (given labels)" if results.get("measured_on") == "given labels" else ""


def learning_curves(rows: list[dict[str, Any]], results: dict[str, Any]) -> Figure:
    """Loss; and accuracy on training, validation and test data, with the memorised share."""
    figure, (left, right) = canvas(9.6, 4.0, 1, 2)
    series(left, rows, "train_loss", "training", BLUE)
    left.set(xlabel="epoch", ylabel="loss", title="Training loss")
    named = [
        ("train_accuracy", "training (given labels)", GRAY),
        ("validation_balanced_accuracy", "validation, balanced (given labels)", BLUE),
        ("test_balanced_accuracy", f"test, balanced{on_given(results)}", GREEN),
        ("memorised", "wrong labels memorised", ORANGE),
    ]
    for key, label, color in named:
        series(right, rows, key, label, color)
    if results["selection_split"]:
        right.axvline(results["selected"]["epoch"], color="black", lw=0.8, ls=":")
        right.annotate(
            "selected",
            (results["selected"]["epoch"], 1.0),
            fontsize=7,
            rotation=90,
            va="top",
            ha="right",
        )
    right.set(xlabel="epoch", ylim=(0, 1.02), title="Accuracy")
    right.legend(frameon=False, fontsize=8)
    return figure


def name_classes(ax: Axes, class_names: Sequence[str]) -> None:
    """Writes class names below the axis, aslant where they are long."""
    aslant = {"rotation": 45, "ha": "right"} if max(map(len, class_names)) > 3 else {}
    ax.set_xticks(range(len(class_names)), class_names, **aslant)


def series(ax: Axes, rows: list[dict[str, Any]], key: str, label: str, color: str) -> None:
    """Draws one column of metrics.jsonl; nothing where it is absent."""
    points = [(row["epoch"], row[key]) for row in rows if row.get(key) is not None]
    if points:
        ax.plot(*zip(*points, strict=True), color=color, label=label, lw=1.4)


def confusion(predicted: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Rows: true class; columns: predicted; each row sums to 1."""
    from sklearn.metrics import confusion_matrix  # Takes a second to import.

    k = len(class_names)
    counts = confusion_matrix(labels, predicted, labels=np.arange(k))
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = float(np.clip(0.42 * k + 2, 4, 14))
    figure, ax = canvas(side + 0.6, side)
    image = ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if k <= 20:
        name_classes(ax, class_names)
        ax.set_yticks(range(k), class_names)
        for i, j in np.ndindex(k, k):
            if share[i, j] >= 0.005:
                color = "white" if share[i, j] > 0.5 else "black"
                ax.text(
                    j,
                    i,
                    f"{100 * share[i, j]:.0f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color=color,
                )
    figure.colorbar(image, ax=ax, shrink=0.8)
    ax.set(xlabel="predicted", ylabel="true", title="Test data, share of the true class (%)")
    return figure


def per_class(
    accuracy: Sequence[float | None],
    class_names: Sequence[str],
    noise: dict[str, Any],
    name: str = "accuracy",
) -> Figure:
    """Draws the accuracy of each class next to the number of its training examples."""
    figure, ax = canvas(max(6.4, 0.22 * len(class_names)), 4.0)
    x = np.arange(len(class_names))
    ax.bar(x, [a or 0 for a in accuracy], color=BLUE)
    ax.set(ylabel=f"test {name}", ylim=(0, 1), title=f"{name.capitalize()} by class")
    if len(class_names) <= 40:
        name_classes(ax, class_names)
    counts = ax.twinx()
    counts.plot(x, noise["given_class_counts"], color=ORANGE, marker="o", ms=3, lw=1)
    counts.set_ylabel("training examples (given labels)", color=ORANGE)
    counts.set_ylim(bottom=0)
    counts.spines["top"].set_visible(False)
    return figure


def reliability(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> Figure:
    """Accuracy against confidence; the diagonal is perfect calibration."""
    confidence, accuracy, share = metrics.reliability(logits, labels, bins)
    figure, ax = canvas(4.6, 4.4)
    edges = (np.arange(bins) + 0.5) / bins
    ax.bar(edges, np.where(share > 0, accuracy, 0), width=0.9 / bins, color=BLUE)
    ax.plot([0, 1], [0, 1], color="black", lw=0.8, ls=":")
    ax.plot(confidence[share > 0], accuracy[share > 0], color=ORANGE, marker="o", ms=3, lw=1)
    error = np.sum(share * np.abs(accuracy - confidence))
    ax.set(
        xlabel="confidence",
        ylabel="accuracy",
        xlim=(0, 1),
        ylim=(0, 1),
        title=f"Reliability, calibration error {100 * error:.1f} %",
    )
    return figure
