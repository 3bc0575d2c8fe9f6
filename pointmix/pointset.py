"""A ragged batch of point sets: every model in pointmix takes one and its layers pass it on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils import _pytree as pytree

from pointmix.io.arrays import as_tensor
from pointmix.io.fields import check_fields, checked_points
from pointmix.io.files import is_image, read_cloud, read_image
from pointmix.io.images import as_channels_last, as_floats, as_mask, check_channels_first
from pointmix.io.pixels import check_finite, checked_pixels
from pointmix.io.rgbd import rgbd_points
from pointmix.layouts.cloud import Cloud
from pointmix.layouts.grid import Grid, axis_coordinates, grid_coordinates, positions, starts
from pointmix.layouts.sparse import SparseGrid
from pointmix.ops.recenter import recenter_for

if TYPE_CHECKING:
    from os import PathLike

    from PIL import Image

    ImageLike = Tensor | np.ndarray | Image.Image


@dataclass(frozen=True, eq=False)
class PointSet:
    """B sets of points, packed one after the other.

    Args:
        pos: (N, D) floating point positions. On a lattice D = 2, rows then columns, each in [-0.5, 0.5] over the
            whole lattice.
        feat: (N, C) floating point features.
        ptr: (B + 1,) int64, or a list; set b owns the points ptr[b] to ptr[b + 1], at least one.
        layout: where the points sit: `Grid` (every cell of a lattice), `SparseGrid` (some cells) or `Cloud` (anywhere).

    Raises:
        ValueError: if the shapes or dtypes do not fit together, or (checked on the CPU only, as reading it would make
            a GPU wait) ptr does not rise from 0 to N.
    """

    pos: Float[Tensor, "N D"]
    feat: Float[Tensor, "N C"]
    ptr: Int[Tensor, "B+1"]
    layout: Grid | SparseGrid | Cloud = Cloud()

    def __post_init__(self) -> None:
        if isinstance(self.feat, (np.ndarray, list)):
            raise ValueError("PointSet: feat must be a tensor; from_points takes arrays")
        if not isinstance(self.feat, Tensor):  # pytree code rebuilds the class around placeholders
            return
        if isinstance(self.ptr, (list, tuple)):
            object.__setattr__(self, "ptr", as_tensor(self.ptr, "PointSet: ptr").to(self.feat.device))
        check_fields(self.pos, self.feat, self.ptr)
        self.layout.check(self.feat.shape[0], self.num_sets)

    # ---- construction -------------------------------------------------------------------------------------------

    @classmethod
    def from_image(
        cls,
        image: ImageLike,
        mask: ImageLike | None = None,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        coord_mode: str = "inclusive",
    ) -> PointSet:
        """One image as one set, a point a pixel.

        Args:
            image: tensor (C, H, W) or (H, W), array (H, W, C) or (H, W), or PIL image, of any size and channel
                count. Bytes become floats in [0, 1]; 16-bit integers likewise; floats are taken as they are.
            mask: (H, W), nonzero where a pixel is visible. Hidden pixels are absent from the set.
            mean, std: per channel; (value - mean) / std.
            coord_mode: "inclusive" puts pixel i of H at i / (H - 1) - 0.5 (Context Clusters, released code),
                "exclusive" at i / H - 0.5 (the paper's text). Coordinates are those of the whole lattice.

        Raises:
            ValueError: on a wrong shape or dtype, values that are not finite, or a mask of another size or without
                a visible pixel.
        """
        values = as_channels_last(image, mean=mean, std=std)  # (H, W, C)
        size = (values.shape[0], values.shape[1])
        pos = grid_coordinates(size, coord_mode, values.dtype, values.device)  # (H * W, 2)
        feat = values.reshape(-1, values.shape[-1])
        if mask is None:
            check_finite(feat, "from_image: image")
            return cls(pos, feat, torch.tensor([0, len(feat)], device=feat.device), Grid(size))
        visible = as_mask(mask, size).to(feat.device)  # (H, W)
        index = visible.flatten().nonzero().squeeze(1)
        check_finite(feat[index], "from_image: the visible part of the image")
        cell = torch.stack([index // size[1], index % size[1]], dim=1)
        layout = SparseGrid(cell, torch.tensor([size], device=feat.device))
        return cls(pos[index], feat[index], torch.tensor([0, len(index)], device=feat.device), layout)

    @classmethod
    def from_images(
        cls,
        images: Float[Tensor, "B C H W"] | Sequence[ImageLike],
        masks: Sequence[ImageLike | None] | None = None,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        coord_mode: str = "inclusive",
    ) -> PointSet:
        """A batch of images as a batch of sets: one tensor (B, C, H, W), or a sequence of images of any sizes.

        Images of one size without masks make a `Grid`, everything else a `SparseGrid`. Arguments and errors are
        those of `from_image`.
        """
        if isinstance(images, Tensor) and images.ndim == 4 and masks is None and images.is_floating_point():
            check_channels_first(images.shape)
            if images.numel() == 0:
                raise ValueError(f"from_images: the batch is empty: {tuple(images.shape)}")
            points = cls.from_batch(images, coord_mode=coord_mode)
            points = points.with_feat(as_floats(points.feat, mean=mean, std=std))
            check_finite(points.feat, "from_images: images")
            return points
        if isinstance(images, Tensor) and images.ndim != 4:
            raise ValueError(f"from_images: expected a batch (B, C, H, W), got {tuple(images.shape)}")
        if len(images) == 0:
            raise ValueError("from_images: the batch is empty")
        if masks is not None and len(masks) != len(images):
            raise ValueError(f"from_images: {len(images)} images but {len(masks)} masks")
        masks = [None] * len(images) if masks is None else masks
        how = dict(mean=mean, std=std, coord_mode=coord_mode)
        return cls.cat([cls.from_image(i, m, **how) for i, m in zip(images, masks, strict=True)])

    @classmethod
    def from_points(cls, xyz: Float[Tensor, "N D"], feat: Float[Tensor, "N C"] | None = None) -> PointSet:
        """One cloud as one set.

        Args:
            xyz: floating point positions (or an array) in any number of dimensions, in any unit.
            feat: features of each point, such as colors or normals; none by default, for the positions are input
                to every model anyway. Bytes and unsigned 16-bit integers become [0, 1]. Those of an array get torch's
                default precision, in which models compute.

        Raises:
            ValueError: if shapes or dtypes do not fit, there is no point, or a number is not finite.
        """
        xyz, feat = checked_points(xyz, feat)
        return cls(xyz, feat, torch.tensor([0, len(xyz)], device=xyz.device))

    @classmethod
    def from_rgbd(
        cls,
        rgb: ImageLike,
        depth: ImageLike,
        intrinsics: Sequence[float] | Float[Tensor, "3 3"] | None = None,
        mask: ImageLike | None = None,
        *,
        depth_scale: float = 1000.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> PointSet:
        """One image with depth as a cloud of its pixels, colors as features. Pixels without a depth are absent: those
        where it is zero, negative, NaN or infinite.

        Args:
            rgb, mask, mean, std: as in `from_image`.
            depth: (H, W); integers are `depth_scale` to a meter (1000 for millimeters), floats are meters.
            intrinsics: of a pinhole camera, (fx, fy, cx, cy) or 3x3, in pixels, with the middle of the first pixel at
                0. Positions are then meters in the camera's frame: x right, y down, z forward. Without it they are
                rows and columns as in `from_image`, and the depth in meters.

        Raises:
            ValueError: as `from_image`, and on a depth of another size or without a valid pixel, or bad intrinsics.
        """
        return cls.from_points(*rgbd_points(rgb, depth, intrinsics, mask, depth_scale=depth_scale, mean=mean, std=std))

    @classmethod
    def from_file(
        cls,
        path: str | PathLike,
        mask: str | PathLike | None = None,
        *,
        index: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> PointSet:
        """The set in a file: an image in RGB (.png, .jpg, ...) or a cloud (.ply, .npy, .npz, .h5; see
        `pointmix.io.files.read_cloud` for what they must hold).

        Args:
            mask: for an image, a file of the same size, zero where a pixel is hidden.
            index: which cloud, of a file that holds (n, N, D).
            mean, std: per feature; (value - mean) / std.

        Raises:
            FileNotFoundError: if there is no such file.
            ModuleNotFoundError: if the library of the format is not installed.
            ValueError: if the file is damaged or does not hold what it should.
        """
        if is_image(path):
            return cls.from_image(*read_image(path, mask, index), mean=mean, std=std)
        return cls.from_points(*read_cloud(path, mask, index, mean=mean, std=std))

    @classmethod
    def from_batch(
        cls,
        batch: Float[Tensor, "B C H W"] | Float[Tensor, "B N D"],
        *,
        coord_mode: str = "inclusive",
        coords: bool = False,
    ) -> PointSet:
        """Images as a grid, or clouds of as many positions each, without a look at the values: what a model does with
        the tensor it is given. With `coords` the features end with the positions, at the cost of one copy for both."""
        if batch.ndim == 3 and min(batch.shape) > 0:
            pos = batch.flatten(0, 1)
            ptr = torch.arange(len(batch) + 1, device=batch.device) * batch.shape[1]
            return cls(pos, pos.clone() if coords else pos.new_zeros(len(pos), 0), ptr)
        if batch.ndim != 4:
            raise ValueError(f"expected images (B, C, H, W) or clouds (B, N, D), got {tuple(batch.shape)}")
        sets, layout = batch.shape[0], Grid(batch.shape[2:])
        pos = positions(sets, layout.size, coord_mode, like=batch)  # (N, 2)
        feat = batch.permute(0, 2, 3, 1)  # (B, H, W, C)
        feat = torch.cat([feat, pos.view(sets, *layout.size, 2)], dim=-1) if coords else feat
        return cls(pos, feat.flatten(0, 2), starts(sets, layout, like=batch), layout)

    @classmethod
    def from_pixels(
        cls,
        values: Float[Tensor, "N C"],
        rows: Int[Tensor, "N"],
        cols: Int[Tensor, "N"],
        size: tuple[int, int],
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        coord_mode: str = "inclusive",
    ) -> PointSet:
        """Scattered pixels of one lattice of `size` (H, W); rows and cols say where each of them is.

        Values are treated as those of `from_image`. The cost is that of the pixels, not of the lattice.

        Raises:
            ValueError: if shapes or dtypes do not fit, a pixel lies outside the lattice or is given twice, or a value
                is not finite.
        """
        values, rows, cols = checked_pixels(values, rows, cols, size, mean=mean, std=std)
        axes = [axis_coordinates(i, side, coord_mode) for i, side in zip((rows, cols), size, strict=True)]
        pos = torch.stack(axes, dim=1).to(values.dtype)
        layout = SparseGrid(torch.stack([rows, cols], dim=1), torch.tensor([size], device=values.device))
        return cls(pos, values, torch.tensor([0, len(values)], device=values.device), layout)

    # ---- views --------------------------------------------------------------------------------------------------

    @property
    def num_sets(self) -> int:
        """B, the number of sets."""
        return self.ptr.numel() - 1

    @property
    def batch(self) -> Int[Tensor, "N"]:
        """The set each point belongs to."""
        sets = torch.arange(self.num_sets, device=self.ptr.device)
        return torch.repeat_interleave(sets, self.ptr.diff(), output_size=len(self.feat))

    def with_feat(self, feat: Float[Tensor, "N K"]) -> PointSet:
        """The same points with other features."""
        return replace(self, feat=feat)

    def as_sparse(self) -> PointSet:
        """The same points on a `SparseGrid`, so that the code for partial images runs on a whole one."""
        return replace(self, layout=self.layout.as_sparse(self.num_sets, self.ptr.device))

    def as_cloud(self) -> PointSet:
        """The same points without their lattice."""
        return self if isinstance(self.layout, Cloud) else replace(self, layout=Cloud())

    def padded(self, fill: float = 0.0) -> tuple[Float[Tensor, "B L C"], Bool[Tensor, "B L"]]:
        """Features (B, L, C) with L the size of the largest set, and where they are real (B, L)."""
        count = self.ptr.diff()  # (B,)
        real = torch.arange(int(count.max()), device=count.device) < count[:, None]  # (B, L)
        out = self.feat.new_full((*real.shape, self.feat.shape[1]), fill)
        out[real] = self.feat
        return out, real

    def to_image(self, fill: float = 0.0) -> Float[Tensor, "B C H W"] | list[Float[Tensor, "C H W"]]:
        """Features on their lattice, absent cells set to `fill`: (B, C, H, W), a list if the sizes differ.

        Raises:
            ValueError: for points without a lattice.
        """
        return self.layout.to_image(self.feat, self.ptr, fill)

    # ---- sets of sets -------------------------------------------------------------------------------------------

    @classmethod
    def cat(cls, sets: Sequence[PointSet]) -> PointSet:
        """Several batches as one, in order. Grids of one size stay a grid; other lattices become sparse."""
        if not sets:
            raise ValueError("cat: no sets given")
        kinds = {"cloud" if isinstance(s.layout, Cloud) else "lattice" for s in sets}
        widths = {(s.pos.shape[1], s.feat.shape[1]) for s in sets}
        if len(kinds) > 1 or len(widths) > 1:
            raise ValueError(f"cat: sets differ in kind ({kinds}) or in (D, C) ({sorted(widths)})")
        grids = {s.layout for s in sets if isinstance(s.layout, Grid)}
        if len(grids) != 1 or any(isinstance(s.layout, SparseGrid) for s in sets):
            sets = [s.as_sparse() for s in sets]
        layout = sets[0].layout.cat([s.layout for s in sets[1:]])
        count = torch.cat([s.ptr.diff() for s in sets])
        ptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
        return cls(torch.cat([s.pos for s in sets]), torch.cat([s.feat for s in sets]), ptr, layout)

    def unbind(self) -> list[PointSet]:
        """One PointSet for each set of the batch."""
        bounds = self.ptr.tolist()
        sets = []
        for b, (lo, hi) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
            layout = self.layout.take(slice(lo, hi), slice(b, b + 1))
            sets.append(PointSet(self.pos[lo:hi], self.feat[lo:hi], self.ptr.new_tensor([0, hi - lo]), layout))
        return sets

    def subset(self, index: Bool[Tensor, "N"] | Int[Tensor, "K"]) -> PointSet:
        """Some of the points, by a boolean mask or by index; the points of a set stay together.

        Raises:
            ValueError: if the index does not fit, names a point twice, or leaves a set without a point.
        """
        index = as_tensor(index, "subset: index").to(self.feat.device)
        if index.dtype == torch.bool:
            if index.shape != (len(self.feat),):
                raise ValueError(f"subset: mask must be ({len(self.feat)},), got {tuple(index.shape)}")
            index = index.nonzero().squeeze(1)
        known = len(index) == 0 or 0 <= index.min() <= index.max() < len(self.feat)
        if not known or len(torch.unique(index)) != len(index):
            raise ValueError(f"subset: index must name different points of 0 to {len(self.feat) - 1}")
        batch = self.batch[index]
        order = torch.argsort(batch, stable=True)
        index = index[order]
        count = torch.bincount(batch, minlength=self.num_sets)
        if (count == 0).any():
            raise ValueError(f"subset: no point left in set {int((count == 0).nonzero()[0])}")
        layout = self.as_sparse().layout.take(index, slice(None))
        ptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
        return PointSet(self.pos[index], self.feat[index], ptr, layout)

    def to(self, *args: Any, **kwargs: Any) -> PointSet:
        """Move or cast as `Tensor.to` does; integer tensors follow the device only.

        Clouds far from the origin, such as those in map coordinates, are moved to it before their positions lose
        digits, see `pointmix.ops.recenter.recenter_for`.
        """
        like = torch.empty(0, dtype=self.pos.dtype, device=self.feat.device).to(*args, **kwargs)
        points = self._recenter_for(like.dtype)
        return pytree.tree_map_only(
            Tensor, lambda t: t.to(*args, **kwargs) if t.is_floating_point() else t.to(like.device), points
        )

    def pin_memory(self) -> PointSet:
        """The same in memory from which a GPU copies by itself, so that `to(device, non_blocking=True)` does not wait;
        torch's loader asks for it."""
        return pytree.tree_map_only(Tensor, lambda t: t.pin_memory(), self)

    def in_type(self, dtype: torch.dtype) -> PointSet:
        """What a network with weights of `dtype` computes with: features in this type, positions in it or in single
        precision if that is more. Clouds far from the origin are moved to it first, as by `to`."""
        wide = torch.promote_types(dtype, torch.float32)
        if self.pos.dtype == wide == self.feat.dtype == dtype:
            return self
        points = self._recenter_for(dtype)
        return replace(points, pos=points.pos.to(wide), feat=points.feat.to(dtype))

    def _recenter_for(self, dtype: torch.dtype) -> PointSet:
        """The same points, such that a cast to `dtype` keeps the positions of a cloud apart."""
        free = isinstance(self.layout, Cloud) and dtype.is_floating_point
        return replace(self, pos=recenter_for(self.pos, self.ptr, dtype)) if free else self

    def __repr__(self) -> str:
        count = self.ptr.diff().tolist()
        sizes = f"{count[0]} points" if len(count) == 1 else f"{min(count)} to {max(count)} points each"
        return (
            f"PointSet({self.num_sets} set{'s' * (self.num_sets > 1)}, {sizes}, {self.feat.shape[1]} channels, "
            f"{self.layout!r}, {str(self.feat.dtype).removeprefix('torch.')}, {self.feat.device})"
        )


pytree.register_pytree_node(
    PointSet,
    lambda s: ([s.pos, s.feat, s.ptr, s.layout], None),
    lambda children, _: PointSet(*children),
    serialized_type_name="pointmix.PointSet",
    flatten_with_keys_fn=lambda s: (
        [(pytree.GetAttrKey(k), getattr(s, k)) for k in ("pos", "feat", "ptr", "layout")],
        None,
    ),
)
