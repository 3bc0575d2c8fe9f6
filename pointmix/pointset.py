"""A ragged batch of point sets: the input of every model, and what its stages pass on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.utils import _pytree as pytree

from pointmix.io.bridges import HasPoints, HasPos, NamedArrays, columns_fields, data_fields, open3d_fields, to_data
from pointmix.io.clouds import read_cloud
from pointmix.io.fields import ImageLike, batch_fields, cloud_fields, image_fields, images_fields, pixel_fields
from pointmix.io.image_files import is_image, read_masked_image
from pointmix.io.images import check_images
from pointmix.io.rgbd import Intrinsics, rgbd_points
from pointmix.io.tensors import ArrayLike, ChannelValues, as_index, as_tensor
from pointmix.io.validate import check_fields
from pointmix.layouts.cloud import Cloud
from pointmix.layouts.grid import Grid
from pointmix.layouts.sparse import SparseGrid
from pointmix.ops.ragged import counts_to_ptr, ptr_to_batch
from pointmix.ops.recenter import recenter_for

if TYPE_CHECKING:
    from os import PathLike


@dataclass(frozen=True, eq=False)
class PointSet:
    """B sets of points, concatenated.

    Args:
        pos: (N, D) floating point positions. On a lattice D = 2, rows then columns, each in [-0.5, 0.5] over the
            whole lattice.
        feat: (N, C) floating point features.
        ptr: (B + 1,) int64 row offsets, or a list: set b is the rows ptr[b] to ptr[b + 1], at least one. PyTorch
            Geometric's `ptr`, not its `batch` vector.
        layout: where the points lie: `Grid` (all cells of a lattice), `SparseGrid` (some cells) or `Cloud` (anywhere).

    Raises:
        ValueError: if shapes or dtypes do not match, or ptr does not rise from 0 to N (checked on the CPU only, to
            avoid synchronizing with a GPU).
    """

    pos: Float[Tensor, "N D"]
    feat: Float[Tensor, "N C"]
    ptr: Int[Tensor, "B1"]
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
        mean: ChannelValues | None = None,
        std: ChannelValues | None = None,
        coord_mode: str = "inclusive",
    ) -> PointSet:
        """One image as one set, a point per pixel.

        Args:
            image: tensor (C, H, W) or (H, W), array (H, W, C) or (H, W), or PIL image, of any size and channel
                count. uint8 and uint16 are scaled to [0, 1]; floats are unchanged.
            mask: (H, W), nonzero where a pixel is visible. Hidden pixels are left out of the set.
            mean, std: per channel; (value - mean) / std.
            coord_mode: "inclusive" puts pixel i of H at i / (H - 1) - 0.5 (Context Clusters, released code),
                "exclusive" at i / H - 0.5 (the paper's text). Masked or not, coordinates are of the whole lattice.

        Raises:
            ValueError: for a wrong shape or dtype, values that are not finite, or a mask of another size or without a
                visible pixel.
        """
        return cls(*image_fields(image, mask, mean=mean, std=std, coord_mode=coord_mode))

    @classmethod
    def from_images(
        cls,
        images: Shaped[Tensor, "B ..."] | Sequence[ImageLike],
        masks: Shaped[Tensor, "B ..."] | Sequence[ImageLike | None] | None = None,
        *,
        mean: ChannelValues | None = None,
        std: ChannelValues | None = None,
        coord_mode: str = "inclusive",
    ) -> PointSet:
        """A batch of images as a batch of sets: one tensor (B, C, H, W), or a sequence of images of any sizes.

        The layout is a `Grid` for images of one size without masks, else a `SparseGrid`. Arguments and errors:
        `from_image`.
        """
        check_images(images, masks)
        if isinstance(images, Tensor) and images.is_floating_point() and masks is None:
            return cls(*images_fields(images, mean=mean, std=std, coord_mode=coord_mode))
        pairs = zip(images, [None] * len(images) if masks is None else masks, strict=True)
        return cls.cat([cls.from_image(i, m, mean=mean, std=std, coord_mode=coord_mode) for i, m in pairs])

    @classmethod
    def from_points(cls, xyz: ArrayLike, feat: ArrayLike | None = None, batch: ArrayLike | None = None) -> PointSet:
        """One cloud as one set, or several clouds one after the other.

        Args:
            xyz: (N, D) floating point positions, in any unit.
            feat: (N, C) features such as colors or normals; by default none, as every model gets the positions anyway.
                uint8 and uint16 are scaled to [0, 1]. An array becomes a tensor of torch's default dtype.
            batch: (N,) the set of each point, 0 to B - 1, in rising order. Unset: all points are one set.

        Raises:
            ValueError: if shapes or dtypes do not match, there is no point, or a value is not finite.
        """
        return cls(*cloud_fields(xyz, feat, batch))

    @classmethod
    def from_columns(cls, columns: NamedArrays, features: Sequence[str] | None = None) -> PointSet:
        """One cloud of arrays by name, or of a structured NumPy array with fields x, y, z and others; names, scales and
        `features` are those of `pointmix.io.read_cloud`.

        Raises:
            ValueError: if there are no positions or no such feature, or a value is not finite.
        """
        return cls(*columns_fields(columns, features))

    @classmethod
    def from_data(cls, data: HasPos, features: Sequence[str] | None = None) -> PointSet:
        """A `Data` or `Batch` of PyTorch Geometric: its pos, features, and ptr or batch vector.

        Args:
            features: names of attributes with a row a point, side by side. Unset: x, if there is one.

        Raises:
            ValueError: if pos or a feature is missing, or as `from_points`.
        """
        return cls(*data_fields(data, features))

    @classmethod
    def from_open3d(cls, cloud: HasPoints, features: Sequence[str] | None = None) -> PointSet:
        """A `PointCloud` of Open3D; `features` are rgb and normal, unset: both, as far as the cloud has them.

        Raises:
            ValueError: if it has no points or no such feature, or a value is not finite.
        """
        return cls(*open3d_fields(cloud, features))

    @classmethod
    def from_rgbd(
        cls,
        rgb: ImageLike,
        depth: ImageLike,
        intrinsics: Intrinsics | None = None,
        mask: ImageLike | None = None,
        *,
        depth_scale: float = 1000.0,
        mean: ChannelValues | None = None,
        std: ChannelValues | None = None,
    ) -> PointSet:
        """One RGB-D image as a cloud of its pixels, with colors as features. Pixels without a valid depth (zero,
        negative, NaN or infinite) are left out.

        Args:
            rgb, mask, mean, std: as in `from_image`.
            depth: (H, W); integers are divided by `depth_scale` (1000 for millimeters), floats are meters.
            intrinsics: of a pinhole camera, (fx, fy, cx, cy) or 3x3, in pixels, with the center of the first pixel at
                0. Positions are then meters in the camera frame: x right, y down, z forward. Without intrinsics they
                are row and column as in `from_image`, and the depth in meters.

        Raises:
            ValueError: as `from_image`, and for a depth of another size or without a valid pixel, or bad intrinsics.
        """
        return cls.from_points(*rgbd_points(rgb, depth, intrinsics, mask, depth_scale=depth_scale, mean=mean, std=std))

    @classmethod
    def from_file(
        cls,
        path: str | PathLike[str],
        mask: str | PathLike[str] | None = None,
        *,
        index: int | None = None,
        mean: ChannelValues | None = None,
        std: ChannelValues | None = None,
    ) -> PointSet:
        """The set in a file: an image in RGB (.png, .jpg, ...) or a cloud (.ply, .laz, .txt, ...), see
        `pointmix.io.read_cloud`, which also takes names of features.

        Args:
            mask: for an image, an image file of the same size, zero where a pixel is hidden.
            index: which cloud, if the file holds many.
            mean, std: per feature; (value - mean) / std.

        Raises:
            FileNotFoundError: if there is no such file.
            ModuleNotFoundError: if the library of the format is not installed.
            ValueError: if the file is damaged or does not hold what it should.
        """
        if is_image(path):
            return cls.from_image(*read_masked_image(path, mask, index), mean=mean, std=std)
        if mask is not None:
            raise ValueError(f"{path}: masks are for images, not for clouds (got {mask})")
        return cls.from_points(*read_cloud(path, index, mean=mean, std=std))

    @classmethod
    def from_batch(
        cls,
        batch: Float[Tensor, "B ..."],
        *,
        coord_mode: str = "inclusive",
        coords: bool = False,
    ) -> PointSet:
        """Images as a grid, or clouds of N points each; values are not checked. What a model makes of a plain tensor.

        Args:
            batch: images (B, C, H, W) or clouds (B, N, D), floating point.
            coord_mode: see `from_image`.
            coords: append the positions to the features, with one copy for both.

        Raises:
            ValueError: for another shape.
        """
        return cls(*batch_fields(batch, coord_mode=coord_mode, coords=coords))

    @classmethod
    def from_pixels(
        cls,
        values: ArrayLike,
        rows: ArrayLike,
        cols: ArrayLike,
        size: Sequence[int],
        *,
        mean: ChannelValues | None = None,
        std: ChannelValues | None = None,
        coord_mode: str = "inclusive",
    ) -> PointSet:
        """Scattered pixels of a lattice, at a cost that depends on their number, not on the size of the lattice.

        Args:
            values: (N, C) or (N,), treated as in `from_image`, as are mean, std and coord_mode.
            rows, cols: (N,) integer cell of each pixel.
            size: (H, W) of the lattice.

        Raises:
            ValueError: if shapes or dtypes do not match, a pixel lies outside the lattice or is given twice, or a value
                is not finite.
        """
        return cls(*pixel_fields(values, rows, cols, size, mean=mean, std=std, coord_mode=coord_mode))

    # ---- views --------------------------------------------------------------------------------------------------

    @property
    def num_sets(self) -> int:
        """B, the number of sets."""
        return self.ptr.numel() - 1

    @property
    def batch(self) -> Int[Tensor, "N"]:
        """The set that each point belongs to (PyTorch Geometric's `batch`)."""
        return ptr_to_batch(self.ptr, self.feat.shape[0])

    def with_feat(self, feat: Float[Tensor, "N K"]) -> PointSet:
        """The same points with other features."""
        return replace(self, feat=feat)

    def as_sparse(self) -> PointSet:
        """The same points on a `SparseGrid`, so that the code for partial images runs on a whole one."""
        return replace(self, layout=self.layout.as_sparse(self.num_sets, self.ptr.device))

    def as_cloud(self) -> PointSet:
        """The same points as a cloud, without their lattice."""
        return self if isinstance(self.layout, Cloud) else replace(self, layout=Cloud())

    def to_image(self, fill: float = 0.0) -> Float[Tensor, "B C H W"] | list[Float[Tensor, "C H W"]]:
        """Features as images (B, C, H, W), or a list of images if the sizes differ; absent cells are set to `fill`.

        Raises:
            ValueError: for a cloud.
        """
        return self.layout.to_image(self.feat, self.ptr, fill)

    def to_data(self) -> HasPos:
        """One set as a `Data` of PyTorch Geometric, several as a `Batch`, with pos, and with x if there are features.

        Raises:
            ModuleNotFoundError: if torch_geometric is not installed.
        """
        return to_data(self.pos, self.feat, self.ptr)

    # ---- sets of sets -------------------------------------------------------------------------------------------

    @classmethod
    def cat(cls, sets: Sequence[PointSet]) -> PointSet:
        """Concatenate batches. Grids of one size stay a grid; other lattices become sparse.

        Raises:
            ValueError: if there is none, or clouds and lattices, or different D or C, are mixed.
        """
        if not sets:
            raise ValueError("cat: no sets given")
        kinds = {"cloud" if isinstance(s.layout, Cloud) else "lattice" for s in sets}
        widths = {(s.pos.shape[1], s.feat.shape[1]) for s in sets}
        if len(kinds) > 1 or len(widths) > 1:
            raise ValueError(f"cat: sets differ in kind ({kinds}) or in (D, C) ({sorted(widths)})")
        grids = {s.layout for s in sets if isinstance(s.layout, Grid)}
        if len(grids) != 1 or any(isinstance(s.layout, SparseGrid) for s in sets):
            sets = [s.as_sparse() for s in sets]
        layout = sets[0].layout.cat([s.layout for s in sets[1:]])  # type: ignore[misc]  # now all of one kind
        ptr = counts_to_ptr(torch.cat([s.ptr.diff() for s in sets]))
        return cls(torch.cat([s.pos for s in sets]), torch.cat([s.feat for s in sets]), ptr, layout)

    def unbind(self) -> list[PointSet]:
        """One PointSet for each set of the batch."""
        bounds = self.ptr.tolist()
        sets = []
        for b, (lo, hi) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
            layout = self.layout.take(slice(lo, hi), slice(b, b + 1))
            sets.append(PointSet(self.pos[lo:hi], self.feat[lo:hi], self.ptr.new_tensor([0, hi - lo]), layout))
        return sets

    def subset(self, index: ArrayLike) -> PointSet:
        """Some of the points, by a boolean mask (N,) or by indices (K,); the order of the sets is kept.

        Raises:
            ValueError: if the index is out of range, names a point twice, or leaves a set without a point.
        """
        chosen = as_index(index, len(self.feat)).to(self.feat.device)
        batch = self.batch[chosen]
        chosen = chosen[torch.argsort(batch, stable=True)]
        count = torch.bincount(batch, minlength=self.num_sets)
        if (count == 0).any():
            raise ValueError(f"subset: no point left in set {int((count == 0).nonzero()[0])}")
        layout = cast("SparseGrid | Cloud", self.as_sparse().layout).take(chosen, slice(None))
        return PointSet(self.pos[chosen], self.feat[chosen], counts_to_ptr(count), layout)

    def to(self, *args: object, **kwargs: object) -> PointSet:
        """Move or cast as `Tensor.to` does; integer tensors only change the device.

        Clouds far from the origin, such as map coordinates, are shifted to it before a cast rounds their positions,
        see `pointmix.ops.recenter.recenter_for`.
        """
        like = torch.empty(0, dtype=self.pos.dtype, device=self.feat.device)
        like = like.to(*args, **kwargs)  # type: ignore[call-overload]

        def moved(t: Tensor) -> Tensor:
            return t.to(*args, **kwargs) if t.is_floating_point() else t.to(like.device)  # type: ignore[call-overload]

        return pytree.tree_map_only(Tensor, moved, self._near_origin(like.dtype))

    def pin_memory(self) -> PointSet:
        """A copy in page-locked memory, for `to(device, non_blocking=True)`; called by torch's DataLoader."""
        return pytree.tree_map_only(Tensor, lambda t: t.pin_memory(), self)

    def in_type(self, dtype: torch.dtype) -> PointSet:
        """Cast for a network with weights of `dtype`: features to it, positions to it or to float32 if that is wider.
        Clouds far from the origin are shifted to it first, as in `to`."""
        wide = torch.promote_types(dtype, torch.float32)
        if self.pos.dtype == wide == self.feat.dtype == dtype:
            return self
        points = self._near_origin(dtype)
        return replace(points, pos=points.pos.to(wide), feat=points.feat.to(dtype))

    def _near_origin(self, dtype: torch.dtype) -> PointSet:
        """The same points, shifted so that a cast to `dtype` keeps the positions of a cloud distinct."""
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
