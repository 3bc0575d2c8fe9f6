"""A color for each class, and legends."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, UInt8

from pointmix.explain.colors import palette
from pointmix.utils.messages import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Color = tuple[int, int, int]
MAX_SHOWN = 40  # classes in a legend
STRIPES = (0.86, 0.78)  # grays of pixels without a label


def class_colors(number: int, own: Sequence[Color] | None = None) -> UInt8[np.ndarray, "K 3"]:
    """Colors of classes, 0 to 255: those of a palette, or different ones for any number of classes.

    Args:
        own: the palette of the data, if it has one.

    Raises:
        ValueError: the palette has fewer colors than there are classes.
    """
    if own is None:
        return _different(number)
    if len(own) < number:
        raise ValueError(f"the palette has {counted(len(own), 'color')} for {counted(number, 'class')}")
    return np.array(own[:number], dtype=np.uint8)


@cache
def _different(number: int) -> UInt8[np.ndarray, "K 3"]:
    """Twelve clearly different colors, then again and again the color that is farthest from all before in CIELAB."""
    chosen = (255 * palette()[:12]).round().astype(np.uint8)[:number]
    steps = np.linspace(0, 255, 16).round().astype(np.uint8)
    free = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    lab = _lab(free)
    visible = (lab[:, 0] > 25) & (lab[:, 0] < 92) & (np.hypot(lab[:, 1], lab[:, 2]) > 15)  # on white, and not gray
    free, lab = free[visible], lab[visible]
    away = np.full(len(free), np.inf)
    for color in _lab(chosen):
        away = np.minimum(away, np.linalg.norm(lab - color, axis=1))
    while len(chosen) < number:
        best = int(away.argmax())
        chosen = np.concatenate([chosen, free[best : best + 1]])
        away = np.minimum(away, np.linalg.norm(lab - lab[best], axis=1))
    return chosen


def _lab(rgb: UInt8[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """CIELAB of sRGB colors, D65."""
    value = rgb / 255
    linear = np.where(value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ (to_xyz / to_xyz.sum(1, keepdims=True)).T
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def shown_classes(labels: Sequence[Int[np.ndarray, "..."]], number: int) -> tuple[list[int], int]:
    """The classes among labels that a legend shows, in their order: the `MAX_SHOWN` most frequent; and how many more
    occur."""
    counts = np.zeros(number, dtype=np.int64)
    for label in labels:
        counts += np.bincount(label[label >= 0].astype(np.int64), minlength=number)
    most = np.sort(np.argsort(-counts, kind="stable")[:MAX_SHOWN])
    shown = most[counts[most] > 0].tolist()
    return shown, int((counts > 0).sum()) - len(shown)


def add_legend(
    figure: Figure,
    labels: Sequence[Int[np.ndarray, "..."]],
    classes: Sequence[str],
    colors: UInt8[np.ndarray, "K 3"],
    *,
    more: Sequence[tuple[str, str]] = (),
) -> int:
    """A legend below a figure with constrained layout: the classes among some labels, in their order, the most frequent
    `MAX_SHOWN` at most.

    Args:
        more: other entries, name and color.

    Returns:
        Number of its lines.
    """
    from matplotlib.patches import Patch

    shown, left = shown_classes(labels, len(classes))
    handles = [Patch(color=colors[label] / 255, label=classes[label]) for label in shown]
    handles += [Patch(facecolor=color, edgecolor="0.6", label=name) for name, color in more]
    if left:
        handles.append(Patch(facecolor="none", label=f"and {left} more"))
    longest = max((len(str(handle.get_label())) for handle in handles), default=1)
    columns = min(len(handles), max(1, int(figure.get_figwidth() * 72 / (5.2 * longest + 32))))
    legend = figure.legend(
        handles=handles, loc="outside lower center", ncols=max(columns, 1), fontsize=9, frameon=False,
        handlelength=1.1, handleheight=1.1, columnspacing=1.4,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    return -(-len(handles) // max(columns, 1))
