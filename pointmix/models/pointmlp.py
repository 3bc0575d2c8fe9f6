"""PointMLP: residual point-wise maps of groups of neighbors; PointMLP-CoC clusters each group before every map.

Ma et al., "Rethinking Network Design and Local Geometry in Point Cloud", ICLR 2022, and "Image as Set of Points",
ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.models import generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pointmix.layouts.cloud import Cloud, canonical_order
from pointmix.models.inputs import as_points
from pointmix.models.registry import build
from pointmix.nn.grouper import Groups
from pointmix.nn.mixers.group import GroupCluster
from pointmix.nn.residual import LinearNorm, Residual
from pointmix.ops.grouping import group_linear_reference, group_rows, inverse_std, map_points
from pointmix.ops.scatter import segment_max
from pointmix.pointset import PointSet
from pointmix.profile.macs import Macs, Part, Size, add, linear_macs, parameters
from pointmix.utils.ranges import COUNT, NATURAL, PART, POSITIVE, check_choice

Input = Tensor | PointSet
HEAD_DIMS = {"max": max, "min": min}  # of a quarter of the channels and 32
CACHED = 2**19  # numbers of a layer that a piece of the groups has on a CPU, 2 MiB of float32
HELD = 2**28  # the same on a GPU


class Stage(nn.Module):
    """Half of the points, each described by its neighbors.

    Args:
        dim_in, dim: channels.
        neighbors: k of each anchor.
        pre: layers on the rows of the groups, (G * k, dim) to the same.
        pos: layers on the anchors after the maximum over each group.
        reference: write groups out before mapping them, and normalize as a step of its own.
    """

    def __init__(
        self,
        dim_in: int,
        dim: int,
        *,
        neighbors: int,
        pre: Sequence[nn.Module],
        pos: Sequence[nn.Module],
        reference: bool,
    ) -> None:
        super().__init__()
        self.neighbors, self.reference = neighbors, reference
        self.alpha, self.beta = nn.Parameter(torch.ones(dim_in)), nn.Parameter(torch.zeros(dim_in))
        self.transfer = LinearNorm(2 * dim_in, dim)
        self.pre, self.pos = nn.ModuleList(pre), nn.ModuleList(pos)
        self.grad_checkpointing = False

    def forward(self, points: PointSet) -> PointSet:
        groups = Groups.of(points, self.neighbors)
        if self.reference or self.training:
            x = self.written_out(points.feat, groups)
        else:
            x = self.in_pieces(points.feat, groups)
        for layer in self.pos:
            x = self.run(layer, x)
        return groups.points(points, x)

    def written_out(self, feat: Float[Tensor, "N C"], groups: Groups) -> Float[Tensor, "S K"]:
        """All groups at once, as batch statistics need them."""
        x = self.run(self.first, feat, groups)
        for layer in self.pre:
            x = self.run(layer, x)
        return x.unflatten(0, (-1, self.neighbors)).amax(1)

    def first(self, feat: Float[Tensor, "N C"], groups: Groups) -> Float[Tensor, "S*k K"]:
        weights = self.alpha, self.beta, self.transfer.linear.weight
        at = groups.near, groups.anchor, groups.batch, groups.sets
        if self.reference:
            x = group_linear_reference(feat, *at, *weights)
        else:
            u, t = map_points(feat, groups.anchor, *weights)
            x = group_rows(u, t, inverse_std(feat, *at), groups.near, groups.anchor)
        return F.relu(self.transfer.norm(x), inplace=True)

    def in_pieces(self, feat: Float[Tensor, "N C"], groups: Groups) -> Float[Tensor, "S K"]:
        """`written_out` in evaluation: normalizations folded into the maps, and without gradients some groups at a
        time, whose layers fit the cache."""
        weight, bias = self.transfer.folded()
        held = CACHED if feat.device.type == "cpu" else HELD
        piece = len(groups.near) if torch.is_grad_enabled() else max(held // (len(weight) * self.neighbors), 1)
        u, t = map_points(feat, groups.anchor, self.alpha, self.beta, weight, bias)
        at = groups.near, groups.anchor
        scale = inverse_std(feat, *at, groups.batch, groups.sets, piece)
        layers, out = [layer.folded() for layer in self.pre], []
        for part in zip(*(x.split(piece) for x in (t, scale, *at)), strict=True):
            x = F.relu(group_rows(u, *part), inplace=True)
            for layer in layers:
                x = layer(x)
            out.append(x.unflatten(0, (-1, self.neighbors)).amax(1))
        return torch.cat(out)

    @property
    def centers(self) -> int:
        """Centers of each group: 1 where its neighbors are clustered, else none."""
        return int(any(isinstance(layer, GroupCluster) for layer in self.pre))

    def macs(self, size: Size) -> Macs:
        """Multiply-adds with every group written out; without the search for neighbors."""
        rows = size.points * self.neighbors
        groups = sum((layer.macs(rows) for layer in self.pre), self.transfer.macs(rows))
        return sum((layer.macs(size.points) for layer in self.pos), groups)

    def run(self, layer: Callable[..., Tensor], *args) -> Tensor:
        """The layer's output, its inside not kept for the backward pass when checkpointing."""
        if not (self.grad_checkpointing and self.training):
            return layer(*args)
        again = lambda: (nullcontext(), _statistics_kept(self))  # noqa: E731
        return checkpoint(layer, *args, use_reentrant=False, context_fn=again)


class PointMLP(nn.Module):
    """Point clouds to logits.

    The input of a point is its features and then its position; sampling and neighbors go by position alone. Any number
    of points will do: a stage keeps n // 2 of n, and at least one; neighbors repeat where there are fewer than k.

    Args:
        in_chans: feature channels, beside positions.
        num_classes: logits; 0 for none.
        coord_dims: coordinates of a position.
        dim: channels of the embedding.
        expansion: by how much each stage widens them.
        pre_blocks, pos_blocks: residual blocks of each stage, on the groups and on the anchors.
        ratio: width of a block's hidden layer over its channels.
        neighbors: k, the points of a group.
        coc_head_dim: None for PointMLP. For PointMLP-CoC the width of queries and values, c channels given: "max" for
            max(c // 4, 32) as in the released code, "min" for min(c // 4, 32) as in the paper.
        order: "canonical" sorts the points of a set first, so that results do not depend on how they were stored.
            "given" starts sampling at the first point as it is stored, as the authors' code does.
        drop_rate: dropout in the classifier.
        reference: build on the reference forms of the ops, for tests and benchmarks.

    Raises:
        ValueError: if the settings do not fit.
    """

    def __init__(
        self,
        *,
        in_chans: int = 0,
        num_classes: int = 40,
        coord_dims: int = 3,
        dim: int = 64,
        expansion: Sequence[int] = (2, 2, 2, 2),
        pre_blocks: Sequence[int] = (2, 2, 2, 2),
        pos_blocks: Sequence[int] = (2, 2, 2, 2),
        ratio: float = 1.0,
        neighbors: int = 24,
        coc_head_dim: str | None = None,
        order: str = "canonical",
        drop_rate: float = 0.5,
        reference: bool = False,
    ) -> None:
        super().__init__()
        COUNT.check(coord_dims=coord_dims, dim=dim, expansion=expansion, neighbors=neighbors)
        NATURAL.check(in_chans=in_chans, num_classes=num_classes, pre_blocks=pre_blocks, pos_blocks=pos_blocks)
        POSITIVE.check(ratio=ratio)
        PART.check(drop_rate=drop_rate)
        for name, value in (("expansion", expansion), ("pre_blocks", pre_blocks), ("pos_blocks", pos_blocks)):
            if not isinstance(value, Sequence) or not value:
                raise ValueError(f"{name} must be a list with a value for each stage, got {value!r}")
            if len(value) != len(expansion):
                raise ValueError(f"{name} has {len(value)} values for {len(expansion)} stages: {tuple(value)}")
        check_choice(known=("canonical", "given"), order=order)
        check_choice(known=(None, *HEAD_DIMS), coc_head_dim=coc_head_dim)
        self.in_chans, self.num_classes, self.coord_dims, self.order = in_chans, num_classes, coord_dims, order
        self.stem = LinearNorm(in_chans + coord_dims, dim)

        def groups(dim: int, blocks: int) -> Iterator[nn.Module]:
            for _ in range(blocks):
                if coc_head_dim:
                    head_dim = HEAD_DIMS[coc_head_dim](dim // 4, 32)
                    yield GroupCluster(dim, head_dim=head_dim, neighbors=neighbors, reference=reference)
                yield Residual(dim, ratio=ratio)

        stages, self.feature_info = [], []
        for i, (factor, pre, pos) in enumerate(zip(expansion, pre_blocks, pos_blocks, strict=True)):
            dim_in, dim = dim, dim * factor
            layers = dict(pre=list(groups(dim, pre)), pos=[Residual(dim, ratio=ratio) for _ in range(pos)])
            stages.append(Stage(dim_in, dim, neighbors=neighbors, reference=reference, **layers))
            self.feature_info.append(dict(num_chs=dim, reduction=2 ** (i + 1), module=f"stages.{i}"))
        self.stages = nn.ModuleList(stages)
        self.num_features, self.head_hidden_size = dim, 256
        self.mlp = nn.ModuleList([LinearNorm(dim, 512, bias=True), LinearNorm(512, 256, bias=True)])
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(256, num_classes) if num_classes else nn.Identity()

    # ---- forward ------------------------------------------------------------------------------------------------

    def as_points(self, x: Input) -> PointSet:
        """The input, its features and positions as features, in the order that sampling starts from.

        Raises:
            ValueError: if it has other channels or dimensions than the model.
        """
        dtype = self.stem.linear.weight.dtype
        x = as_points(x, dtype=dtype, in_chans=self.in_chans, coord_dims=self.coord_dims)
        feat = torch.cat([x.feat, x.pos.to(x.feat.dtype)], dim=1)
        if self.order == "given":
            return PointSet(x.pos, feat, x.ptr)
        order = canonical_order(x.pos, x.feat, x.ptr)
        return PointSet(x.pos[order], feat[order], x.ptr, Cloud())

    def parts(self, points: PointSet) -> Iterator[Part]:
        """Parameters and multiply-adds of the stem, each stage and the head for one set; nothing runs."""
        before = len(points.pos)
        yield Part("embedding", self.stem.linear.out_features, parameters(self.stem), self.stem.macs(before))
        for i, stage in enumerate(self.stages):
            after = max(before // 2, 1)
            size = Size(before, after, slots=after * stage.neighbors, windows=after, centers=stage.centers)
            search = Macs(products=after * before * self.coord_dims)  # squared distances
            channels = stage.transfer.linear.out_features
            yield Part(f"stage {i + 1}", channels, parameters(stage), stage.macs(size) + search, size)
            before = after
        macs = add(layer.macs(1) for layer in self.mlp)
        if isinstance(self.head, nn.Linear):
            macs += linear_macs(1, self.head)
        yield Part("head", self.head_hidden_size, parameters(self.mlp, self.head), macs)

    def forward_features(self, x: Input) -> PointSet:
        """The points that the last stage keeps, and their features."""
        return self.forward_intermediates(x, [len(self.stages) - 1])[0]

    def forward_intermediates(
        self,
        x: Input,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[PointSet] | tuple[PointSet, list[PointSet]]:
        """Outputs of the last stage and of the chosen ones: the last n for a number, all for None.

        Args:
            norm, output_fmt: timm's; there is no final norm, and the outputs are PointSets.
            stop_early: do not run the stages after the last chosen one.
            intermediates_only: leave out the final features.
        """
        take, last = feature_take_indices(len(self.stages), indices)
        points, found = self.as_points(x), []
        points = points.with_feat(F.relu(self.stem(points.feat), inplace=True))
        for i, stage in enumerate(self.stages[: last + 1] if intermediates_only or stop_early else self.stages):
            points = stage(points)
            if i in take:
                found.append(points)
        return found if intermediates_only else (points, found)

    def forward_head(self, x: PointSet, pre_logits: bool = False) -> Float[Tensor, "B K"]:
        """Maximum over the points of each set, then the classifier."""
        x = segment_max(x.feat, x.batch, x.num_sets)
        for layer in self.mlp:
            x = self.head_drop(F.relu(layer(x), inplace=True))
        return x if pre_logits else self.head(x)

    def forward(self, x: Input) -> Float[Tensor, "B K"]:
        """Logits (B, num_classes) of clouds (B, N, D) or a PointSet."""
        return self.forward_head(self.forward_features(x))

    # ---- timm's contract ----------------------------------------------------------------------------------------

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last chosen one, and the classifier."""
        take, last = feature_take_indices(len(self.stages), indices)
        self.stages = self.stages[: last + 1]
        if prune_head:
            self.reset_classifier(0)
        return take

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last layer, for other classes; 0 takes it away.

        Raises:
            ValueError: if another pooling than the maximum is asked for.
        """
        if global_pool not in (None, "max"):
            raise ValueError(f"global_pool must be 'max', got {global_pool!r}")
        NATURAL.check(num_classes=num_classes)
        self.num_classes = num_classes
        like = self.stem.linear.weight
        self.head = nn.Linear(256, num_classes) if num_classes else nn.Identity()
        self.head.to(like.device, like.dtype)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the layers of the stages in the backward pass instead of keeping what is inside them."""
        for stage in self.stages:
            stage.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that must not decay: none beyond the vectors that optimizers leave out anyway."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict:
        """Layers for learning rates that fall with depth."""
        return dict(stem=r"^stem", blocks=r"^stages\.(\d+)")


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Running means do not move: a layer that is computed again has already moved them."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)


# ---- variants ---------------------------------------------------------------------------------------------------

_CFG = dict(
    url="",
    num_classes=40,
    input_size=None,  # clouds, not images
    pool_size=None,
    first_conv="stem.linear",
    classifier="head",
    license="apache-2.0",
    paper_name="Rethinking Network Design and Local Geometry in Point Cloud",
    paper_ids="arXiv:2202.07123",
)
_COC_CFG = _CFG | dict(paper_name="Image as Set of Points", paper_ids="arXiv:2303.01494")
default_cfgs = generate_default_cfgs(
    {"pointmlp.untrained": _CFG, "pointmlp_elite.untrained": _CFG, "pointmlp_coc.untrained": _COC_CFG}
)


def _create(variant: str, pretrained: bool = False, **kwargs) -> PointMLP:
    return build(PointMLP, variant, pretrained, kwargs_filter=("img_size", "global_pool"), **kwargs)


@register_model
def pointmlp(pretrained: bool = False, **kwargs) -> PointMLP:
    """PointMLP: 13.24 M parameters with 40 classes."""
    return _create("pointmlp", pretrained, **kwargs)


@register_model
def pointmlp_elite(pretrained: bool = False, **kwargs) -> PointMLP:
    """PointMLP-elite: 0.72 M parameters with 40 classes."""
    elite = dict(dim=32, expansion=(2, 2, 2, 1), pre_blocks=(1, 1, 2, 1), pos_blocks=(1, 1, 2, 1), ratio=0.25)
    return _create("pointmlp_elite", pretrained, **(elite | kwargs))


@register_model
def pointmlp_coc(pretrained: bool = False, **kwargs) -> PointMLP:
    """PointMLP-CoC: 15.33 M parameters with 40 classes; `coc_head_dim` as in the released code ("max") unless given."""
    return _create("pointmlp_coc", pretrained, **(dict(coc_head_dim="max") | kwargs))
