"""What a page shows of one input: its points, thinned, with their colors and places on the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.explain.clouds import UP, cloud_colors, light, upright
from pointmix.explain.frames import pixels_of_centers
from pointmix.explain.images import to_pictures
from pointmix.explain.page.view import Lattice, Scattered, as_bytes, index
from pointmix.io.fields import ImageLike
from pointmix.layouts.sparse import SparseGrid
from pointmix.ops.neighbors import knn
from pointmix.pointset import PointSet

MAX_PIXELS, MAX_POINTS = 65_536, 40_000  # shown of a lattice, of a cloud
FULL = 2**16 - 1  # of a position on the page


@dataclass(frozen=True)
class Scene:
    """One input and how it is shown.

    Args:
        x: input of the network, an image (1, C, H, W) or one set.
        pos: (N, D) positions of the shown points, as the network has them; on the CPU.
        points: the shown points on the page.
        place: positions (K, D) of centers to their places on the page.
    """

    x: Tensor | PointSet
    pos: Float[Tensor, "N D"]
    points: Lattice | Scattered
    place: Callable[[Float[Tensor, "K D"]], np.ndarray]


def image_scene(
    x: Float[Tensor, "1 C H W"] | PointSet,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    coord_mode: str = "inclusive",
) -> Scene:
    """An image, or the visible pixels of a partial one.

    Args:
        x: input of the network, normalized: a batch of one image, or one set on a lattice.
        mean, std: per channel, to undo the normalization, see `pointmix.explain.draw_clusters`.
        coord_mode: the network's, see `PointSet.from_image`.
    """
    pixels = x if isinstance(x, PointSet) else PointSet.from_batch(x, coord_mode=coord_mode)
    pixels = _one_set(pixels).to("cpu")
    return _lattice_scene(x, pixels, to_pictures(pixels, mean, std)[0], lambda pos: pos, coord_mode == "inclusive")


def frame_scene(frame: PointSet, photo: ImageLike) -> Scene:
    """An RGB-D frame on its image plane.

    Args:
        frame: the input of the network with the pixels of its points, see `pointmix.explain.frames.frame_on_lattice`.
        photo: its colors, as `PointSet.from_image` takes them.
    """
    frame = _one_set(frame).in_type(torch.float32)  # as the network does, so that centers match the points
    pixels, (picture,) = frame.to("cpu"), to_pictures(PointSet.from_image(photo), None, None)
    return _lattice_scene(frame.as_cloud(), pixels, picture, lambda pos: pixels_of_centers(pixels, pos), True)


def cloud_scene(
    points: PointSet,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    up: str = "y",
) -> Scene:
    """A cloud; see `pointmix.explain.draw_clouds` for the arguments.

    Raises:
        ValueError: it is not in three dimensions, or there is no such axis.
    """
    if points.pos.shape[1] != 3:
        raise ValueError(f"expected points in 3 dimensions, got {points.pos.shape[1]}")
    if up not in UP:
        raise ValueError(f"up must be one of {', '.join(UP)}, got {up!r}")
    points = _one_set(points).in_type(torch.float32)  # as the network does, so that centers match the points
    cloud = points.to("cpu")
    pos = upright(cloud.pos.double().numpy(), up)  # (N, 3), of all points
    low = pos.min(0)
    scale = max(float((pos.max(0) - low).max()), 1e-12) / FULL

    def place(centers: Float[Tensor, "K 3"]) -> np.ndarray:
        at = (upright(centers.double().cpu().numpy(), up) - low) / scale
        return np.rint(np.nan_to_num(at).clip(0, FULL)).astype(np.uint16)

    chosen = torch.randperm(len(pos), generator=torch.Generator().manual_seed(0))[:MAX_POINTS].sort().values
    shown = cloud.subset(chosen)
    near = knn(shown.pos, shown.ptr, shown.pos, shown.ptr, 16).numpy()  # (N, 16)
    scattered = Scattered(
        count=len(shown.pos),
        given=len(pos),
        color=as_bytes(cloud_colors(shown, pos[chosen.numpy()], mean, std)),
        position=place(shown.pos),
        low=(float(low[0]), float(low[1]), float(low[2])),
        scale=scale,
        light=as_bytes(light(pos[chosen.numpy()], near)),
    )
    return Scene(points, shown.pos.double(), scattered, place)


def _lattice_scene(
    x: Tensor | PointSet,
    pixels: PointSet,
    picture: Float[np.ndarray, "H W 3"],
    on_plane: Callable[[Float[Tensor, "K D"]], Float[Tensor, "K 2"]],
    inclusive: bool,
) -> Scene:
    """Points on a lattice, thinned by whole rows and columns.

    Args:
        x: input of the network.
        pixels: one set on a lattice.
        picture: its colors.
        on_plane: positions to those on the image plane, from -0.5 to 0.5.
        inclusive: whether the last pixel of a side is at 0.5; if not, the one after it.
    """
    layout = pixels.as_sparse().layout
    assert isinstance(layout, SparseGrid)
    cell, (height, width) = layout.cell.numpy(), picture.shape[:2]
    step = 1
    while (chosen := _kept(cell, step)).size > MAX_PIXELS:
        step += 1
    sides = np.array([height, width]) - inclusive
    rows, columns = (cell[chosen] // step).T
    shown = (-(-height // step), -(-width // step))

    def place(centers: Float[Tensor, "K D"]) -> np.ndarray:
        at = (on_plane(centers.float().cpu()).numpy() + 0.5) * sides / step
        return np.nan_to_num(at).astype(np.float32)

    lattice = Lattice(
        count=len(chosen),
        given=len(cell),
        color=as_bytes(picture[tuple(cell[chosen].T)]),
        height=shown[0],
        width=shown[1],
        step=step,
        pixel=index(rows * shown[1] + columns),
    )
    return Scene(x, pixels.pos[torch.from_numpy(chosen)].double(), lattice, place)


def _kept(cell: Int[np.ndarray, "N 2"], step: int) -> Int[np.ndarray, "n"]:
    """The points in every step-th row and column."""
    return (cell % step == 0).all(1).nonzero()[0]


def _one_set(points: PointSet) -> PointSet:
    if points.num_sets != 1:
        raise ValueError(f"a page is of one input, got {points.num_sets}")
    return points
