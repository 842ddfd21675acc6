"""Figures of what a method has learned; `runs.diagnostics` says what a report holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxrobust.plots import weights as weight_figures
from jaxrobust.plots.run import (
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    canvas,
    name_classes,
    save,
    series,
)

Report = dict[str, Any]


def draw(
    report: Report,
    folder: Path,
    *,
    given: np.ndarray,
    true: np.ndarray | None,
    class_names: Sequence[str],
    prefix: str = "",
) -> list[Path]:
    """Draws what a report holds; returns the files written."""
    paths = []
    if "rank_weights" in report:
        weights, rank = np.asarray(report["rank_weights"]), np.asarray(report["rank"])
        figure = weight_by_rank(weights, rank, given, true, class_names)
        paths.append(save(figure, folder / f"{prefix}weight_by_rank.png"))
    if "margins" in report:
        figure = margin_by_class(np.asarray(report["margins"]), given, class_names)
        paths.append(save(figure, folder / f"{prefix}margins.png"))
    if "weights" in report:
        weights = np.asarray(report["weights"])
        figure = weight_figures.weights_by_kind(weights, given, true, class_names)
        paths.append(save(figure, folder / f"{prefix}weights.png"))
        if "curves" in report and not prefix:
            curves = np.asarray(report["curves"])[: len(given)]
            figure = weight_figures.curves_by_kind(curves, given, true, class_names)
            paths.append(save(figure, folder / "curves.png"))
            figure = weight_figures.weight_against_loss(
                weights, curves[:, -1], given, true, class_names
            )
            paths.append(save(figure, folder / "weight_against_loss.png"))
    return paths


def weight_by_rank(
    weights: np.ndarray,
    rank: np.ndarray,
    given: np.ndarray,
    true: np.ndarray | None,
    class_names: Sequence[str],
    most: int = 12,
) -> Figure:
    """Weight g[r, k] against rank, one panel a class, with the share of right labels in bins."""
    ranks, classes = weights.shape
    shown = np.unique(np.linspace(0, classes - 1, min(classes, most)).astype(int))
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = canvas(2.6 * columns, 2.0 * rows + 0.5, rows, columns)
    axes = np.atleast_1d(axes).ravel()
    for ax, k in zip(axes, shown, strict=False):
        if true is not None:
            center, share = clean_share(rank[given == k], (given == true)[given == k], ranks)
            ax.bar(
                center,
                share,
                width=ranks / 10 * 0.9,
                color=GRAY,
                alpha=0.35,
                label="share of right labels",
            )
        ax.plot(np.arange(ranks), weights[:, k], color=BLUE, lw=1.6, label="learned weight")
        ax.set(title=str(class_names[k]), ylim=(0, 1.05), xlim=(0, ranks))
        ax.title.set_fontsize(9)
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    axes[0].legend(frameon=False, fontsize=7, loc="lower left")
    figure.supxlabel("rank by loss within the given class", fontsize=9)
    figure.supylabel("weight of the given label", fontsize=9)
    return figure


def clean_share(
    rank: np.ndarray, right: np.ndarray, ranks: int, bins: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Returns centers and share of right labels of `bins` equal ranges of rank; 0 if empty."""
    which = np.clip(rank * bins // ranks, 0, bins - 1)
    count = np.bincount(which, minlength=bins)
    share = np.bincount(which, right, minlength=bins) / np.maximum(count, 1)
    return (np.arange(bins) + 0.5) * ranks / bins, share


def margin_by_class(margins: np.ndarray, given: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draws the margin of each class next to the number of its examples."""
    k = len(class_names)
    figure, ax = canvas(max(6.4, 0.22 * k), 4.0)
    x = np.arange(k)
    ax.bar(x, margins, color=BLUE)
    ax.set(ylabel="margin added to the logit", title="Learned margin by class")
    if k <= 40:
        name_classes(ax, class_names)
    counts = ax.twinx()
    counts.plot(x, np.bincount(given, minlength=k), color=ORANGE, marker="o", ms=3, lw=1)
    counts.set_ylabel("training examples (given labels)", color=ORANGE)
    counts.set_ylim(bottom=0)
    counts.spines["top"].set_visible(False)
    return figure


def draw_history(
    rows: list[dict[str, Any]], folder: Path, counts: Sequence[int], class_names: Sequence[str]
) -> list[Path]:
    """Draws, over the epochs, how good corrected labels, metadata and weights were.

    Args:
      rows: of metrics.jsonl.
      counts: int [K], examples of each given class.

    Returns:
      The files written: none where nothing is told.
    """
    figure = weight_figures.weight_by_class_history(rows, counts, class_names)
    paths = [] if figure is None else [save(figure, folder / "weight_by_class.png")]
    named = [
        ("corrected_accuracy_clean", "corrected labels right, of right given", GREEN),
        ("corrected_accuracy_wrong", "corrected labels right, of wrong given", ORANGE),
        ("metadata_clean_share", "right labels among metadata", BLUE),
        ("weight_auroc", "weights: area under the ROC", GRAY),
        ("weight_auroc_within_class", "the same within a given class", "black"),
    ]
    if not any(row.get(key) is not None for row in rows for key, _, _ in named):
        return paths
    figure, ax = canvas()
    for key, label, color in named:
        series(ax, rows, key, label, color)
    ax.set(xlabel="epoch", ylim=(0, 1.02), title="What was learned about the labels")
    ax.legend(frameon=False, fontsize=8)
    return [*paths, save(figure, folder / "learned.png")]
