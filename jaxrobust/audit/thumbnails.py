"""Embedded images and SVG charts of the report."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

SIDE = 160  # pixels of a thumbnail at most
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 420, 220, 44, 34, 26
COLORS = ("#3465a4", "#d9711c")
MOST_BYTES = 2_000_000  # of the embedded figures together


def data_url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def thumbnail(x: np.ndarray, side: int = SIDE) -> str:
    """Returns an image, uint8 [H, W, C], as a data URL: PNG if small, else a JPEG of `side`."""
    x = np.clip(x, 0, 255).astype(np.uint8)
    image = Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x[..., :3])
    buffer = io.BytesIO()
    if max(image.size) <= 64:
        image.save(buffer, "PNG")
        return data_url(buffer.getvalue(), "png")
    image.thumbnail((side, side))
    image.save(buffer, "JPEG", quality=82)
    return data_url(buffer.getvalue(), "jpeg")


def embedded(folder: Path | None, names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns names in words and data URLs of those figures that are there, until it is enough."""
    found, total = [], 0
    if folder is None:
        return found
    for name in names:
        path = folder / f"{name}.png"
        size = path.stat().st_size if path.is_file() else 0
        if 0 < size <= MOST_BYTES - total:
            total += size
            words = name.replace("_", " ").capitalize()
            found.append((words, data_url(path.read_bytes(), "png")))
    return found


def histogram(values: np.ndarray, groups: dict[str, np.ndarray], label: str, bins: int = 25):
    """Returns an SVG chart: share of each of two groups (bool [N]) by value, as bars."""
    low, high = float(min(values.min(), 0)), float(max(values.max(), 1))
    shares = {}
    for name, members in groups.items():
        count, edges = np.histogram(values[members], bins, (low, high))
        shares[name] = count / max(members.sum(), 1)
    top = max(max(s.max() for s in shares.values()), 1e-9)
    x, y = _scale(low, high), _scale_up(0, top)
    parts = []
    for i, share in enumerate(shares.values()):
        width = (x(edges[1]) - x(edges[0])) / 2 - 0.5
        for b, s in enumerate(share):
            if s > 0:
                parts.append(
                    f'<rect x="{x(edges[b]) + i * (width + 0.5):.1f}" y="{y(s):.1f}" '
                    f'width="{width:.1f}" height="{y(0) - y(s):.1f}" fill="{COLORS[i]}"/>'
                )
    return _chart(parts, list(groups), (low, high), (0, top), label, "share of group")


def curves(values: np.ndarray, groups: dict[str, np.ndarray], most: int = 5000):
    """Returns an SVG chart: median and quartiles of curves [N, S] in each of two groups."""
    lines = []
    for members in groups.values():
        rows = np.flatnonzero(members & np.isfinite(values).any(1))
        rows = rows[:: max(1, len(rows) // most)]
        lines.append(_quartiles(values[rows]) if len(rows) else None)
    steps = values.shape[1]
    high = max((float(np.nanmax(q)) for q in lines if q is not None), default=1.0) or 1.0
    x, y = _scale(0, 1), _scale_up(0, high)
    at = x((np.arange(steps) + 0.5) / steps)
    parts = []
    for color, q in zip(COLORS, lines, strict=False):
        if q is None:
            continue
        low, middle, up = (y(v) for v in q)
        band = [*zip(at, up, strict=True), *zip(at[::-1], low[::-1], strict=True)]
        parts.append(f'<polygon points="{_points(band)}" fill="{color}" opacity="0.18"/>')
        line = _points(zip(at, middle, strict=True))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
    return _chart(parts, list(groups), (0, 1), (0, high), "share of the training", "loss")


def _quartiles(values: np.ndarray) -> np.ndarray:
    """Returns [3, S]; where nothing is known, what was known before."""
    q = np.zeros((3, values.shape[1]))
    for s in range(values.shape[1]):
        column = values[:, s][np.isfinite(values[:, s])]
        q[:, s] = np.quantile(column, [0.25, 0.5, 0.75]) if len(column) else q[:, max(s - 1, 0)]
    return q


def _scale(low, high):
    return lambda v: LEFT + (v - low) / (high - low) * (WIDTH - LEFT - 8)


def _scale_up(low, high):
    return lambda v: HEIGHT - BOTTOM - (v - low) / (high - low) * (HEIGHT - BOTTOM - TOP)


def _points(pairs) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in pairs)


def _chart(parts, names, across, up, x_label, y_label) -> Markup:
    """Puts axes, ticks and a legend around the parts of a chart."""
    x, y = _scale(*across), _scale_up(*up)
    around = [f'<path d="M{LEFT},{TOP} V{y(up[0]):.1f} H{WIDTH - 8}" fill="none" stroke="#888"/>']
    for v in np.linspace(*across, 5):
        around.append(f'<text x="{x(v):.1f}" y="{HEIGHT - 20}" text-anchor="middle">{v:.2g}</text>')
    for v in np.linspace(*up, 4):
        around.append(f'<text x="{LEFT - 5}" y="{y(v) + 4:.1f}" text-anchor="end">{v:.2g}</text>')
    around.append(
        f'<text x="{WIDTH / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>'
    )
    around.append(f'<text x="4" y="12">{escape(y_label)}</text>')
    for i, name in enumerate(names):
        left = LEFT + 110 + 125 * i
        around.append(f'<rect x="{left}" y="4" width="10" height="10" fill="{COLORS[i]}"/>')
        around.append(f'<text x="{left + 14}" y="13">{escape(name)}</text>')
    label = escape(f"{y_label} by {x_label}: {', '.join(names)}")
    body = "".join([*parts, *around])
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{body}</svg>'
    )
