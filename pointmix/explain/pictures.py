"""Clusters drawn over the images that a model saw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pointmix.explain.colors import color_regions
from pointmix.pointset import PointSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL = 448  # pixels of a panel's longer side, about
HEAD = 0  # the head that is shown


@torch.no_grad()
def draw_clusters(
    model: nn.Module,
    images: Float[Tensor, "B C H W"] | PointSet,
    path: str | Path,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    max_images: int = 4,
) -> None:
    """Write a PNG with a row for each image: the image, then its clusters in the first block and each stage's last.

    A region of one color is a cluster of head 0; a dot is its center, at the mean place of the points that form it;
    white lines part the windows. Pixels that are absent are hatched gray.

    Args:
        model: has `explain(x) -> list[Assignment]`; its mode is as before afterwards.
        images: what the model takes, normalized; an image batch, or point sets on a lattice, masked or not.
        path: the PNG, replaced if it is there.
        mean, std: per channel, to undo the normalization. Without them, values outside [0, 1] are stretched to it.
        classes: names of the classes; if given, the predicted one is written beside each image.
        max_images: rows at most.
    Raises:
        ValueError: if there is no image, or the points lie on no lattice.
        AttributeError: if the model has no `explain`.
    """
    from matplotlib.figure import Figure  # half a second, needed only to draw

    from pointmix.utils.atomic import replacing

    mode = getattr(model, "coord_mode", "inclusive")
    points = images if isinstance(images, PointSet) else PointSet.from_batch(images, coord_mode=mode)
    if points.num_sets == 0 or max_images < 1:
        raise ValueError(f"draw_clusters: no image to draw ({points.num_sets} given, max_images {max_images})")
    points = points if points.num_sets <= max_images else PointSet.cat(points.unbind()[:max_images])
    x = points if isinstance(images, PointSet) else images[:max_images]

    was_training = model.training
    model.eval()
    try:
        shown = _shown(model.explain(x))
        chances = model(x).float().softmax(1) if classes is not None else None  # (B, classes)
    finally:
        model.train(was_training)
    pictures = _pictures(points, mean, std)

    rows, columns = len(pictures), 1 + len(shown)
    figure = Figure(figsize=(2.6 * columns, 2.6 * rows + 0.55), dpi=130, layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False)
    for row, (picture, seen) in enumerate(zip(pictures, points.unbind(), strict=True)):
        axes[row, 0].imshow(_hatched(_enlarge(picture)), interpolation="nearest")
        if chances is not None:
            best = int(chances[row].argmax())
            name = classes[best] if best < len(classes) else f"class {best}"
            axes[row, 0].set_xlabel(f"{name}, {chances[row, best]:.0%}", fontsize=9, parse_math=False)
        for column, assignment in enumerate(shown, start=1):
            _draw_panel(axes[row, column], picture, seen, assignment, row, last=mode == "inclusive")
    axes[0, 0].set_title("image", fontsize=9, fontweight="bold")
    for column, assignment in enumerate(shown, start=1):
        axes[0, column].set_title(_title(assignment), fontsize=9, fontweight="bold")
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set_visible(False)
    with replacing(path) as file:
        figure.savefig(file, format="png")


def _shown(assignments: list[Any]) -> list[Any]:
    """The first block and the last one of each stage."""
    if not assignments:
        raise ValueError("draw_clusters: the model clusters in none of its blocks")
    last = {a.name.rpartition(".blocks.")[0]: a for a in assignments}
    first = [] if last[assignments[0].name.rpartition(".blocks.")[0]] is assignments[0] else assignments[:1]
    return [*first, *last.values()]


def _title(assignment: Any) -> str:
    stage, _, block = assignment.name.rpartition(".blocks.")
    windows = int(assignment.window.max()) + 1
    per_window = len(assignment.center_pos) // windows
    where = f"stage {int(stage.rpartition('.')[2]) + 1}, block {int(block) + 1}"
    return f"{where}\n{per_window} center{'s' * (per_window != 1)} per window"


def _pictures(points: PointSet, mean: Sequence[float] | None, std: Sequence[float] | None) -> list[np.ndarray]:
    """(H, W, 3) for each set, in [0, 1], NaN where absent."""
    feat = points.feat.float()
    feat = feat if std is None else feat * feat.new_tensor(std)
    feat = feat if mean is None else feat + feat.new_tensor(mean)
    if mean is None and std is None and (feat.min() < 0 or feat.max() > 1):
        feat = (feat - feat.min()) / (feat.max() - feat.min())
    feat = feat[:, :3] if feat.shape[1] >= 3 else feat[:, :1].expand(-1, 3)  # further channels have no color
    maps = points.with_feat(feat.clamp(0, 1)).to_image(fill=float("nan"))
    return [m.permute(1, 2, 0).cpu().numpy() for m in maps]


def _maps(seen: PointSet, assignment: Any, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Center and window (H, W) of every pixel of image `row`, by the stage's nearest point; -1 if absent."""
    from sklearn.neighbors import KDTree

    lo, hi = assignment.points.ptr[row : row + 2].tolist()
    tree = KDTree(assignment.points.pos[lo:hi].double().cpu().numpy())
    nearest = torch.from_numpy(tree.query(seen.pos.double().cpu().numpy(), return_distance=False)[:, 0])  # (pixels,)
    center = assignment.center[lo:hi, HEAD].cpu()[nearest]
    window = assignment.window[lo:hi].cpu()[nearest]
    both = torch.stack([center, window], dim=1).double().to(seen.feat.device)  # (pixels, 2)
    both = seen.with_feat(both).to_image(fill=-1)[0].long().cpu().numpy()  # (2, H, W)
    return both[0], both[1]


def _draw_panel(ax: Axes, picture: np.ndarray, seen: PointSet, assignment: Any, row: int, *, last: bool) -> None:
    """One block's clusters; `last` says whether the last pixel of a side is at 0.5, or the one after it."""
    center, window = _maps(seen, assignment, row)
    colors = color_regions(center, window)
    paint = np.full(picture.shape, np.nan)
    for label, color in colors.items():
        paint[center == label] = color
    gray = picture.mean(axis=2, keepdims=True)  # the image stays readable under the color
    overlay = _hatched(_enlarge(0.62 * paint + 0.38 * gray))
    overlay[_edges(_enlarge(center))] *= 0.35
    overlay[_edges(_enlarge(window))] = 1.0
    ax.imshow(overlay, interpolation="nearest")

    scale = len(overlay) / len(picture)
    sides = np.array(picture.shape[:2])
    labels = np.array(list(colors))
    at = (assignment.center_pos.float().cpu().numpy()[labels] + 0.5) * (sides - last)  # (centers, 2), in pixels
    at = (at + 0.5) * scale - 0.5
    size = np.clip(1200 / len(labels), 3, 40)
    ax.scatter(at[:, 1], at[:, 0], s=size, c=list(colors.values()), edgecolors="black", linewidths=np.sqrt(size) / 8)
    points, windows = int(assignment.points.ptr[row : row + 2].diff()), len(np.unique(window[window >= 0]))
    ax.set_xlabel(f"{points} point{'s' * (points != 1)}, {windows} window{'s' * (windows != 1)}", fontsize=8)


def _enlarge(image: np.ndarray) -> np.ndarray:
    factor = max(1, round(PANEL / max(image.shape[:2])))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _hatched(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) with NaN pixels as diagonal gray stripes."""
    rows, columns = np.indices(image.shape[:2])
    width = max(1, max(image.shape[:2]) // 40)
    stripes = np.where((rows + columns) // width % 2, 0.86, 0.78)[..., None]
    return np.where(np.isnan(image), stripes, image)


def _edges(labels: np.ndarray) -> np.ndarray:
    """(H, W) bool, True along the borders between different labels, both present."""
    edge = np.zeros(labels.shape, dtype=bool)
    edge[1:] |= (labels[1:] != labels[:-1]) & (labels[1:] >= 0) & (labels[:-1] >= 0)
    edge[:, 1:] |= (labels[:, 1:] != labels[:, :-1]) & (labels[:, 1:] >= 0) & (labels[:, :-1] >= 0)
    return edge
