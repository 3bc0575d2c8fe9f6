"""Every cell of a lattice, row by row: what an image is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils import _pytree as pytree

from pointmix.layouts.plan import EvenPlan, IndexPlan
from pointmix.layouts.top import EvenTop, Taps
from pointmix.layouts.windows import (
    around,
    check_options,
    first_of_equals,
    member_signature,
    reflection,
    window_bounds,
)


def axis_coordinates(index: Int[Tensor, "*N"], side: int, mode: str) -> Float[Tensor, "*N"]:
    """Where the cells `index` of a side lie in [-0.5, 0.5]; modes are those of `grid_coordinates`."""
    if mode not in ("inclusive", "exclusive"):
        raise ValueError(f"coord_mode must be 'inclusive' or 'exclusive', got {mode!r}")
    return index / (max(side - 1, 1) if mode == "inclusive" else side) - 0.5


def grid_coordinates(
    size: tuple[int, int], mode: str, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "H*W 2"]:
    """Row and column of every cell in [-0.5, 0.5], row-major.

    "inclusive": i / (H - 1) - 0.5 (Context Clusters, released code); "exclusive": i / H - 0.5 (its paper, section 3.1).
    A side of one cell lies at -0.5. Computed in float32 whatever the dtype, as in the released code.
    """
    axes = [axis_coordinates(torch.arange(side, device=device), side, mode) for side in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 2).to(dtype)


class Grid:
    """All H x W cells of a lattice are present in every set, row-major."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = (int(size[0]), int(size[1]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and self.size == other.size

    def __hash__(self) -> int:
        return hash(self.size)

    def __repr__(self) -> str:
        return f"grid {self.size[0]}x{self.size[1]}"

    def check(self, points: int, sets: int) -> None:
        """Raise ValueError unless `sets` whole grids make `points` points."""
        if points != sets * self.size[0] * self.size[1]:
            raise ValueError(
                f"PointSet: {sets} grids of {self.size[0]}x{self.size[1]} have "
                f"{sets * self.size[0] * self.size[1]} points, got {points}"
            )

    def points_per_set(self) -> int:
        """The number of points of each set."""
        return self.size[0] * self.size[1]

    def as_sparse(self, sets: int, device: torch.device):
        """The same cells, listed."""
        from pointmix.layouts.sparse import SparseGrid

        index = torch.arange(self.points_per_set(), device=device).repeat(sets)
        cell = torch.stack([index // self.size[1], index % self.size[1]], dim=1)
        return SparseGrid(cell, torch.tensor([self.size], device=device).repeat(sets, 1))

    def take(self, points: slice, sets: slice) -> Grid:
        """Some of the sets; some of the points are a `SparseGrid`."""
        return self

    def cat(self, others: list[Grid]) -> Grid:
        """This batch of sets and others of the same size."""
        return self

    def to_image(self, feat: Float[Tensor, "N C"], ptr: Int[Tensor, "B+1"], fill: float) -> Float[Tensor, "B C H W"]:
        return feat.view(-1, *self.size, feat.shape[-1]).permute(0, 3, 1, 2)

    def reduce(self, pos, feat, ptr, weight, bias, *, stride: int, padding: int, keep: str, absent: str = "zero"):
        """Strided convolution of the features; positions are block means. Cells past a multiple of the stride stay.

        Returns pos (N', 2), feat (N', Cout), ptr and layout of the ceil(H / stride) x ceil(W / stride) grid.
        """
        out = tuple(-(-side // stride) for side in self.size)
        kernel = weight.shape[-1]
        extra = [(o - 1) * stride + kernel - padding - side for o, side in zip(out, self.size, strict=True)]
        x = self.to_image(feat, ptr, 0.0)
        if max(extra) > padding:  # zeros below and to the right complete the last block
            x = F.pad(x, (padding, max(extra[1], 0), padding, max(extra[0], 0)))
            padding = 0
        y = F.conv2d(x, weight, bias, stride, padding)[..., : out[0], : out[1]]
        pos = self._block_means(pos, stride)
        feat = y.permute(0, 2, 3, 1).reshape(-1, y.shape[1])  # (N', Cout), a view where y is channels last
        ptr = torch.arange(ptr.numel(), device=ptr.device) * (out[0] * out[1])
        return pos, feat, ptr, Grid(out)

    def pool(self, points, coarse, stride: int) -> tuple[Float[Tensor, "K C"], None]:
        """Mean features of the points that each point of `coarse` stands for, here a block of stride^2 cells.

        Args:
            points, coarse: PointSets on this layout and on the one that `reduce` made of it.

        Returns:
            The means, and which of them come from other points than any before them, None if all do.
        """
        return self._block_means(points.feat, stride), None

    def _block_means(self, x: Float[Tensor, "N C"], stride: int) -> Float[Tensor, "K C"]:
        x = x.view(-1, *self.size, x.shape[1]).permute(0, 3, 1, 2)  # (B, C, H, W), channels last in memory
        x = F.avg_pool2d(x, stride, ceil_mode=True, count_include_pad=False)
        return x.permute(0, 2, 3, 1).flatten(0, 2)

    def plan(
        self,
        pos: Float[Tensor, "N 2"],
        ptr: Int[Tensor, "B+1"],
        folds: int,
        centers: int,
        *,
        pad: str | None = None,
        shift: bool = False,
        table: int | None = None,
        top: int | None = None,
    ) -> EvenPlan | IndexPlan:
        """`folds` windows a side (fewer on a shorter side), `centers` x `centers` centers in each.

        Args:
            pad: None for windows that differ by a row or column at most, and centers that are merged where they
                coincide; "needed" and "always" for equal windows of a lattice continued by reflection, see
                `reflection`.
            shift: roll the windows by half of one, cyclically. Only with `pad`.
            table: side of the table of positions that slots will read.
            top: centers a side of the level above, None for no such level.
        """
        check_options(pad, shift, table, top)
        if pad is not None:
            return self._plan_reflected(pos, ptr, folds, centers, pad, shift, table, top)
        batch = ptr.numel() - 1
        height, width = self.size
        fh, fw = min(folds, height), min(folds, width)
        if height % fh == 0 and width % fw == 0 and centers <= min(height // fh, width // fw):
            pooling = _pooling(height // fh, width // fw, centers, pos)
            return EvenPlan(batch, self.size, (fh, fw), pooling)
        window = torch.arange(fh * fw, device=ptr.device)
        above, rows = window_bounds(window // fw, height, fh)  # (S,)
        left, cols = window_bounds(window % fw, width, fw)
        longest, widest = -(-height // fh), -(-width // fw)
        i = torch.arange(longest * widest, device=ptr.device)  # slots of the largest window, row-major
        r, c = (i // widest).expand(len(window), -1), (i % widest).expand(len(window), -1)  # (S, L)
        valid = (r < rows[:, None]) & (c < cols[:, None])
        r, c = torch.minimum(r, rows[:, None] - 1), torch.minimum(c, cols[:, None] - 1)
        slot = (above[:, None] + r) * width + left[:, None] + c  # (S, L)
        members = around(torch.stack([r, c], -1), torch.stack([rows, cols], -1)[:, None], centers)
        members = members & valid[..., None]  # (S, L, M)
        center_valid = first_of_equals(member_signature(members, i.expand_as(r)))
        pooling = members.to(pos.dtype).transpose(1, 2)  # (S, M, L)
        pooling = pooling / pooling.sum(-1, keepdim=True)
        points = self.points_per_set()
        place = (~valid).flatten().to(torch.uint8).argsort(stable=True)[:points]  # (H * W,) slots with a point
        sets = torch.arange(batch, device=ptr.device)[:, None]
        valid = valid.repeat(batch, 1)  # (B S, L)
        return IndexPlan(
            order=(slot.flatten()[place] + sets * points).flatten(),
            slot=valid.flatten().cumsum(0).view(valid.shape) - 1,
            valid=valid,
            place=(place + sets * slot.numel()).flatten(),
            pooling=pooling.repeat(batch, 1, 1),
            row_window=None,
            center_valid=center_valid.repeat(batch, 1),
            windows=batch * len(window),
        )

    def _plan_reflected(self, pos, ptr, folds, centers, pad, shift, table, top) -> EvenPlan | IndexPlan:
        """Everything of one set, whose like all others are."""
        batch, device, (height, width) = ptr.numel() - 1, ptr.device, self.size
        (fh, above, tall), (fw, left, wide) = (reflection(side, folds, pad) for side in self.size)
        h, w = tall // fh, wide // fw
        down, right = (h // 2, w // 2) if shift else (0, 0)
        window = torch.arange(fh * fw, device=device)[:, None]
        inside = torch.arange(h * w, device=device)  # slots of a window, row-major
        r = (window // fw * h + inside // w + down) % tall  # (S, L) on the continued lattice
        c = (window % fw * w + inside % w + right) % wide
        cell = torch.stack([r, c], -1)
        taps = None if table is None else Taps.of(cell, (tall, wide), table, pos.dtype)
        over = None
        if top is not None:
            members = around(cell, torch.tensor((tall, wide), device=device), top).permute(2, 0, 1)  # (G, S, L)
            members = members.flatten(1).to(pos.dtype)
            on = torch.cartesian_prod(torch.arange(fh, device=device), torch.arange(fw, device=device))[None]
            over = EvenTop(batch, members / members.sum(1, keepdim=True), Taps.of(on, (fh, fw), folds, pos.dtype))
        if (tall, wide) == self.size and not shift:
            return EvenPlan(batch, self.size, (fh, fw), _pooling(h, w, centers, pos), taps, over)
        r, c = (r - above).abs(), (c - left).abs()
        source = (height - 1 - (height - 1 - r).abs()) * width + width - 1 - (width - 1 - c).abs()  # (S, L)
        cell = torch.arange(height * width, device=device)
        r, c = (cell // width + above - down) % tall, (cell % width + left - right) % wide
        place = ((r // h * fw + c // w) * h + r % h) * w + c % w  # (H W,)
        sets = torch.arange(batch, device=device)
        return IndexPlan(
            order=torch.arange(batch * len(cell), device=device),
            slot=(source + sets.view(-1, 1, 1) * len(cell)).flatten(0, 1),  # (B S, L)
            valid=None,
            place=(place + sets[:, None] * source.numel()).flatten(),
            pooling=_pooling(h, w, centers, pos).expand(batch * len(source), -1, -1),
            row_window=None,
            center_valid=None,
            windows=batch * len(source),
            taps=taps,
            top=over,
        )


def _pooling(height: int, width: int, centers: int, like: Tensor) -> Float[Tensor, "M L"]:
    """Adaptive average pooling of a window as a matrix."""
    cell = torch.arange(height * width, device=like.device)
    cell = torch.stack([cell // width, cell % width], -1)  # (L, 2)
    members = around(cell, torch.tensor((height, width), device=like.device), centers).t().to(like.dtype)
    return members / members.sum(1, keepdim=True)


pytree.register_pytree_node(
    Grid,
    lambda g: ([], g.size),
    lambda _, size: Grid(size),
    serialized_type_name="pointmix.Grid",
    flatten_with_keys_fn=lambda g: ([], g.size),
)
