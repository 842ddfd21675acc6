"""Draws every loss and its gradient weight: `python docs/make_pictures.py [FOLDER]`.

Left, the loss of an example over the probability p of its given label, the other classes sharing
the rest; right, how strongly it pulls on that label's logit, |dl/dz_y|, beside cross-entropy's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust import losses
from jaxrobust.plots import run

K, EPOCHS = 10, 150
COUNTS = np.round(5000 * 0.01 ** (np.arange(K) / (K - 1))).astype(int)  # a long tail
GIVEN = np.linspace(0.005, 0.995, 199)


def curves(name: str, settings: dict, label: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns loss and gradient weight, [P] each, over `GIVEN`, for an example of class `label`."""
    supplied = {"key": jax.random.key(0), "class_counts": COUNTS}
    settings = settings | {k: supplied[k] for k in losses.needs(name)}
    if name == "nlnl":  # Each other class once, instead of at random; equal class sizes.
        others = jnp.array([[k for k in range(K) if k != label]])
        settings = {"complementary_labels": others, "class_counts": np.ones(K, int)}

    def of_logits(z):
        return losses.get(name)(z[None], jnp.array([label]), **settings)[0]

    p = np.tile((1 - GIVEN[:, None]) / (K - 1), (1, K))
    p[:, label] = GIVEN
    value, gradient = jax.vmap(jax.value_and_grad(of_logits))(jnp.log(jnp.asarray(p)))
    return np.asarray(value), np.abs(np.asarray(gradient)[:, label])


def variants(name: str) -> dict[str, tuple[dict, int]]:
    """Returns what is drawn of a loss: text -> (keyword arguments, class of the example)."""
    values = losses.settings(name)
    if name in losses.SCHEDULES:
        return {
            f"epoch {epoch} of {EPOCHS}": (losses.at_epoch(name, values, epoch, EPOCHS), 0)
            for epoch in (0, EPOCHS // 2, EPOCHS - 1)
        }
    if name == "ldam":
        values = values | {"scale": 1.0}  # As the recipes: these logits are no cosines.
    if name in ("ldam", "logit_adjusted", "balanced_softmax"):
        return {"largest class": (values, 0), "smallest class": (values, K - 1)}
    return {name: (values, 0)}


def picture(name: str) -> run.Figure:
    figure, (left, right) = run.canvas(8.4, 3.0, 1, 2)
    drawn = {} if name == "ce" else {"cross-entropy": ("ce", {}, 0)}
    drawn |= {text: (name, *chosen) for text, chosen in variants(name).items()}
    rises = name == "ce_sr"  # By a constant that grows over the epochs, out of the picture.
    colors = run.COLORS if "cross-entropy" in drawn else run.COLORS[1:]
    for color, (text, chosen) in zip(colors, drawn.items(), strict=False):
        value, weight = curves(*chosen)
        for ax, y in ((left, value - value.min() if rises else value), (right, weight)):
            ax.plot(GIVEN, y, color=color, lw=1.6, label=text)
    top = max(np.percentile(line.get_ydata(), 96) for line in left.get_lines())
    left.set(
        xlabel="probability of the given label",
        xlim=(0, 1),
        ylim=(None, top),
        title="loss above its least" if rises else "loss",
    )
    right.set(xlabel="probability of the given label", title="gradient weight", xlim=(0, 1))
    left.legend(frameon=False, fontsize=8)
    return figure


def main(folder: Path) -> list[Path]:
    """Draws all losses into a folder; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    return [run.save(picture(name), folder / f"{name}.svg") for name in losses.LOSSES]


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "images" / "losses"))
