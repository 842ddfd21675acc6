"""Pictures of loss curves and of learned weights, by kind of example.

Kinds: rightly and wrongly labeled, each in large, medium and small given classes; where the truth
is not known, by given class alone. Symbols: N examples, K classes, T epochs of a curve.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from jaxrobust.plots.run import BLUE, GREEN, ORANGE, canvas

CLEAN, WRONG, ALL = ("right label", GREEN), ("wrong label", ORANGE), ("all", BLUE)


def thirds(counts: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    """Returns the classes in three groups, by number of examples; classes without any in none."""
    counts = np.asarray(counts)
    order = np.argsort(-counts, kind="stable")
    parts = np.array_split(order[counts[order] > 0], 3)
    return dict(zip(("head", "medium", "tail"), parts, strict=True))


def kinds(given: np.ndarray, true: np.ndarray | None) -> list[tuple[str, str, np.ndarray]]:
    """Returns `(name, color, bool [N])` of each kind within a group that has examples."""
    if true is None:
        named = [(*ALL, np.ones(len(given), bool))]
    else:
        named = [(*CLEAN, given == true), (*WRONG, given != true)]
    return [kind for kind in named if kind[2].any()]


def _panels(given: np.ndarray, true: np.ndarray | None, class_names: Sequence[str]) -> Any:
    """Returns a figure and, per group, its axes and its kinds."""
    counts = np.bincount(given, minlength=len(class_names))
    groups = {name: which for name, which in thirds(counts).items() if len(which)}
    figure, axes = canvas(3.3 * len(groups), 3.2, 1, len(groups))

    def panels() -> Iterator[tuple[Any, list[tuple[str, str, np.ndarray]]]]:
        for ax, (name, classes) in zip(np.atleast_1d(axes), groups.items(), strict=True):
            few = ", ".join(str(class_names[c]) for c in classes[:4])
            more = ", ..." if len(classes) > 4 else ""
            ax.set_title(f"{name} classes ({few}{more})", fontsize=9)
            inside = np.isin(given, classes)
            named = [(n, c, mask & inside) for n, c, mask in kinds(given, true)]
            yield ax, [kind for kind in named if kind[2].any()]

    return figure, np.atleast_1d(axes), panels()


def curves_by_kind(
    curves: np.ndarray, given: np.ndarray, true: np.ndarray | None, class_names: Sequence[str]
) -> Figure:
    """Mean loss curve of each kind, with the middle half of its examples.

    Args:
      curves: [N, T].
      given, true: int [N]; `true` may be None.
    """
    figure, axes, panels = _panels(given, true, class_names)
    epochs = np.arange(1, curves.shape[1] + 1)
    for ax, named in panels:
        for name, color, members in named:
            of_kind = curves[members].astype(np.float32)
            low, high = np.percentile(of_kind, (25, 75), axis=0)
            ax.fill_between(epochs, low, high, color=color, alpha=0.25, lw=0)
            ax.plot(epochs, of_kind.mean(0), color=color, lw=1.6, label=f"{name} ({members.sum()})")
        ax.set(xlabel="epoch of the probe", ylim=(0, None))
        ax.legend(frameon=False, fontsize=8)
    _share_y(axes)
    axes[0].set_ylabel("loss: mean, and the middle half")
    return figure


def weights_by_kind(
    weights: np.ndarray, given: np.ndarray, true: np.ndarray | None, class_names: Sequence[str]
) -> Figure:
    """Histogram of the weights [N] of each kind, as shares of the kind."""
    figure, axes, panels = _panels(given, true, class_names)
    bins = np.linspace(0, max(float(weights.max()), 1e-6), 26)
    for ax, named in panels:
        for name, color, members in named:
            share = np.full(members.sum(), 1 / members.sum())
            ax.hist(
                weights[members],
                bins,
                weights=share,
                color=color,
                alpha=0.5,
                label=f"{name} ({members.sum()})",
            )
        ax.set(xlabel="weight", ylim=(0, 1))
        ax.legend(frameon=False, fontsize=8)
    axes[0].set_ylabel("share of the kind")
    return figure


def weight_against_loss(
    weights: np.ndarray,
    loss: np.ndarray,
    given: np.ndarray,
    true: np.ndarray | None,
    class_names: Sequence[str],
    most: int = 5000,
) -> Figure:
    """Weight [N] of each example against its loss [N] at the end of the probe."""
    figure, axes, panels = _panels(given, true, class_names)
    for ax, named in panels:
        for name, color, members in named:
            rows = np.flatnonzero(members)
            rows = rows[:: -(-len(rows) // most)]
            ax.scatter(loss[rows], weights[rows], s=7, color=color, alpha=0.5, lw=0, label=name)
        ax.set(
            xlabel="loss at the end of the probe",
            xlim=(0, None),
            ylim=(0, 1.05 * float(weights.max()) + 1e-6),
        )
        ax.legend(frameon=False, fontsize=8)
    axes[0].set_ylabel("weight")
    return figure


def weight_by_class_history(
    rows: list[dict[str, Any]], counts: Sequence[int], class_names: Sequence[str]
) -> Figure | None:
    """Mean weight of each given class over the epochs, the largest class darkest.

    Args:
      rows: of metrics.jsonl.
      counts: int [K], examples of each given class.

    Returns:
      A figure, or None if there are no weights.
    """
    known = any("weight_clean_by_class" in row for row in rows)
    named = {"weight_by_class": ALL[0]}
    if known:
        named = {"weight_clean_by_class": CLEAN[0], "weight_wrong_by_class": WRONG[0]}
    drawn = [row for row in rows if all(key in row for key in named)]
    if not drawn:
        return None
    figure, axes = canvas(4.6 * len(named) + 1.2, 3.8, 1, len(named))
    order = np.argsort(-np.asarray(counts), kind="stable")
    colors = colormaps["viridis"](np.linspace(0, 0.92, len(order)))
    epochs = [row["epoch"] for row in drawn]
    for ax, (key, name) in zip(np.atleast_1d(axes), named.items(), strict=True):
        for color, k in zip(colors, order, strict=True):
            values = np.array([row[key][k] for row in drawn], float)
            ax.plot(epochs, values, color=color, lw=1.3, label=f"{class_names[k]} ({counts[k]})")
        ax.set(xlabel="epoch", ylim=(0, None), title=name)
    _share_y(np.atleast_1d(axes))
    np.atleast_1d(axes)[0].set_ylabel("mean weight of the given class")
    if len(order) <= 20:
        figure.legend(
            *np.atleast_1d(axes)[0].get_legend_handles_labels(),
            frameon=False,
            fontsize=8,
            loc="outside right center",
            title="class (examples)",
        )
    return figure


def _share_y(axes: np.ndarray) -> None:
    top = max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(0, top)
