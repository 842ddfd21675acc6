"""Figure of a sweep: a group of bars for each noise and imbalance."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxrobust.plots import run as figures


def draw(rows: list[dict[str, Any]]) -> figures.Figure:
    """Draws balanced accuracy and memorised labels, a group of bars for each noise, imbalance."""
    settings = list(dict.fromkeys((r["noise"], r["imbalance"]) for r in rows))
    methods = list(dict.fromkeys(r["method"] for r in rows))
    figure, axes = figures.canvas(max(6.4, 1.6 * len(settings) + 2), 6.4, 2, 1)
    titles = {
        "last_balanced_accuracy": "Balanced accuracy on clean test data, last epoch",
        "last_memorised": "Share of wrong labels memorised, last epoch",
    }
    width = 0.8 / len(methods)
    for ax, (column, title) in zip(axes, titles.items(), strict=True):
        for i, method in enumerate(methods):
            of_method = {(r["noise"], r["imbalance"]): r for r in rows if r["method"] == method}
            means = [of_method[s][column] or 0 for s in settings]
            errors = [of_method[s][f"{column}_deviation"] or 0 for s in settings]
            x = np.arange(len(settings)) + (i - (len(methods) - 1) / 2) * width
            color = figures.COLORS[i % len(figures.COLORS)]
            ax.bar(x, means, 0.92 * width, yerr=errors, color=color, label=method, capsize=2)
        ax.set(ylim=(0, 1.02), title=title)
        ax.set_xticks(range(len(settings)), ["\n".join(s) for s in settings], fontsize=8)
    named = axes[0].get_legend_handles_labels()
    figure.legend(*named, frameon=False, ncols=len(methods), loc="outside upper center")
    return figure
