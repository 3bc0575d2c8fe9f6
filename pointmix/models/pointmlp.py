"""PointMLP: residual point-wise MLPs on groups of neighbors; PointMLP-CoC clusters each group before every MLP.

Ma et al., "Rethinking Network Design and Local Geometry in Point Cloud", ICLR 2022, and "Image as Set of Points",
ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pointmix.layouts.cloud import Cloud, canonical_order
from pointmix.models.inputs import as_points
from pointmix.models.registry import build, take_indices
from pointmix.nn.grouper import Groups
from pointmix.nn.heads.classify import ClassifierBase
from pointmix.nn.mixers.group import GroupCluster
from pointmix.nn.residual import LinearNorm, Residual, norm_relu
from pointmix.ops.group_linear import group_linear_reference, group_rows, inverse_std, map_points
from pointmix.ops.group_max import group_max
from pointmix.pointset import PointSet
from pointmix.profile.macs import Macs, Part, Size, add, linear_macs, parameters
from pointmix.utils.ranges import COUNT, NATURAL, POSITIVE, check_choice

Input = Tensor | PointSet
HEAD_DIMS = {"max": max, "min": min}  # of a quarter of the channels and 32
CPU_CHUNK, GPU_CHUNK = 2**19, 2**28  # elements of a layer's output for one chunk of groups (2 MiB of float32 on a CPU)


class PointMLPStage(nn.Module):
    """Half of the points as anchors, with features computed from the neighbors of each.

    Args:
        dim_in, dim: channels.
        neighbors: k of each anchor.
        pre: layers on the rows of the groups, (G * k, dim) to the same shape.
        pos: layers on the anchors, after the maximum over each group.
        reference: form the groups before the linear map, and normalize in a separate step.
    """

    def __init__(
        self,
        dim_in: int,
        dim: int,
        *,
        neighbors: int,
        pre: Sequence[Residual | GroupCluster],
        pos: Sequence[Residual],
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
            x = self.all_groups(points.feat, groups)
        else:
            x = self.in_chunks(points.feat, groups)
        for layer in self.pos:
            x = self.run(layer, x)
        return groups.as_points(points, x)

    def all_groups(self, feat: Float[Tensor, "N C"], groups: Groups) -> Float[Tensor, "S K"]:
        """All groups at once, as batch statistics need them."""
        x = self.run(self.group_features, feat, groups)
        for layer in self.pre:
            x = self.run(layer, x)
        return group_max(x.unflatten(0, (-1, self.neighbors)))

    def group_features(self, feat: Float[Tensor, "N C"], groups: Groups) -> Float[Tensor, "R K"]:
        """The first layer: features of the neighbors, normalized within their group and mapped linearly."""
        weights = self.alpha, self.beta, self.transfer.linear.weight
        index = groups.neighbors, groups.anchor, groups.batch, groups.num_sets
        if self.reference:
            x = group_linear_reference(feat, *index, *weights)
        else:
            u, t = map_points(feat, groups.anchor, *weights)
            x = group_rows(u, t, inverse_std(feat, *index), groups.neighbors, groups.anchor)
        return norm_relu(self.transfer.norm, x)

    def in_chunks(self, feat: Float[Tensor, "N C"], groups: Groups) -> Float[Tensor, "S K"]:
        """`all_groups` of evaluation mode: normalizations are folded into the linear maps. Without gradients it runs
        some groups at a time, so that the layers' outputs fit the cache."""
        weight, bias = self.transfer.folded()
        elements = CPU_CHUNK if feat.device.type == "cpu" else GPU_CHUNK
        whole = torch.is_grad_enabled() or torch.compiler.is_exporting()
        chunk = 0 if whole else max(elements // (len(weight) * self.neighbors), 1)
        u, t = map_points(feat, groups.anchor, self.alpha, self.beta, weight, bias)
        index = groups.neighbors, groups.anchor
        scale = inverse_std(feat, *index, groups.batch, groups.num_sets, chunk)
        layers, out = [layer.folded() for layer in self.group_layers], []
        for part in zip(*(x.split(chunk) if chunk else (x,) for x in (t, scale, *index)), strict=True):
            x = F.relu(group_rows(u, *part), inplace=True)
            for layer in layers:
                x = layer(x)
            out.append(x.unflatten(0, (-1, self.neighbors)).amax(1))
        return torch.cat(out)

    @property
    def centers(self) -> int:
        """Number of centers of each group: 1 if its neighbors are clustered, else 0."""
        return int(any(isinstance(layer, GroupCluster) for layer in self.pre))

    def macs(self, size: Size) -> Macs:
        """Multiply-adds of all rows of all groups; without the search for neighbors."""
        rows = size.points * self.neighbors
        groups = sum((layer.macs(rows) for layer in self.group_layers), self.transfer.macs(rows))
        return sum((layer.macs(size.points) for layer in cast(Iterable[Residual], self.pos)), groups)

    @property
    def group_layers(self) -> Iterable[Residual | GroupCluster]:
        """`pre`, typed."""
        return cast(Iterable[Residual | GroupCluster], self.pre)

    def run(self, layer: Callable[..., Tensor], *args: object) -> Tensor:
        """The layer's output; with checkpointing its activations are recomputed in the backward pass."""
        if not (self.grad_checkpointing and self.training):
            return layer(*args)
        contexts = lambda: (nullcontext(), _frozen_statistics(self))  # noqa: E731  forward, recomputation
        return checkpoint(layer, *args, use_reentrant=False, context_fn=contexts)


class PointMLP(ClassifierBase):
    """Point clouds to logits.

    The input of a point is its features followed by its position; sampling and neighbors depend on positions only. Any
    number of points is allowed: a stage keeps n // 2 of n, at least one; neighbors repeat if there are fewer than k.

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
        order: "canonical" sorts the points of a set first, so that results do not depend on the order of storage.
            "given" starts sampling at the first point as stored, as the authors' code does.
        drop_rate: dropout in the classifier.
        reference: build on the reference forms of the ops, for tests and benchmarks.
        pyramid: dense tasks: return the points of all stages instead of logits.

    Raises:
        ValueError: if a setting is out of range, or the per-stage settings differ in length.
    """

    poolings = ("max",)

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
        pyramid: bool = False,
    ) -> None:
        super().__init__()
        COUNT.check(coord_dims=coord_dims, dim=dim, expansion=expansion, neighbors=neighbors)
        NATURAL.check(in_chans=in_chans, num_classes=num_classes, pre_blocks=pre_blocks, pos_blocks=pos_blocks)
        POSITIVE.check(ratio=ratio)
        for name, value in (("expansion", expansion), ("pre_blocks", pre_blocks), ("pos_blocks", pos_blocks)):
            if not isinstance(value, Sequence) or not value:
                raise ValueError(f"{name} must be a list with a value for each stage, got {value!r}")
            if len(value) != len(expansion):
                raise ValueError(f"{name} has {len(value)} values for {len(expansion)} stages: {tuple(value)}")
        check_choice(known=("canonical", "given"), order=order)
        check_choice(known=(None, *HEAD_DIMS), coc_head_dim=coc_head_dim)
        self.in_chans, self.coord_dims, self.order = in_chans, coord_dims, order
        self.stem = LinearNorm(in_chans + coord_dims, dim)

        def groups(dim: int, blocks: int) -> Iterator[Residual | GroupCluster]:
            for _ in range(blocks):
                if coc_head_dim:
                    head_dim = HEAD_DIMS[coc_head_dim](dim // 4, 32)
                    yield GroupCluster(dim, head_dim=head_dim, neighbors=neighbors, reference=reference)
                yield Residual(dim, ratio=ratio)

        stages, self.feature_info = [], []
        for i, (factor, pre, pos) in enumerate(zip(expansion, pre_blocks, pos_blocks, strict=True)):
            dim_in, dim = dim, dim * factor
            on_groups, on_anchors = list(groups(dim, pre)), [Residual(dim, ratio=ratio) for _ in range(pos)]
            layers = PointMLPStage(dim_in, dim, neighbors=neighbors, pre=on_groups, pos=on_anchors, reference=reference)
            stages.append(layers)
            self.feature_info.append(dict(num_chs=dim, reduction=2 ** (i + 1), module=f"stages.{i}"))
        self.stages = nn.ModuleList(stages)
        self.num_features = dim
        self.pyramid = pyramid
        hidden = [] if pyramid else [LinearNorm(dim, 512, bias=True), LinearNorm(512, 256, bias=True)]
        self.mlp = nn.ModuleList(hidden)
        self.set_classifier(256, 0 if pyramid else num_classes, global_pool="max", drop_rate=drop_rate)

    # ---- forward ------------------------------------------------------------------------------------------------

    def as_points(self, x: Input) -> PointSet:
        """The input with positions appended to the features, sorted as `order` says.

        Raises:
            ValueError: if it has other channels or dimensions than the model takes.
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
        for i, stage in enumerate(cast(Iterable[PointMLPStage], self.stages)):
            after = max(before // 2, 1)
            size = Size(before, after, slots=after * stage.neighbors, windows=after, centers=stage.centers)
            search = Macs(products=after * before * self.coord_dims)  # squared distances
            channels = stage.transfer.linear.out_features
            yield Part(f"stage {i + 1}", channels, parameters(stage), stage.macs(size) + search, size)
            before = after
        macs = add(layer.macs(1) for layer in cast(Iterable[LinearNorm], self.mlp))
        if isinstance(self.head, nn.Linear):
            macs += linear_macs(1, self.head)
        yield Part("head", self.head_hidden_size, parameters(self.mlp, self.head), macs)

    def forward_features(self, x: Input) -> PointSet:
        """The points that the last stage keeps, with their features."""
        return self.forward_intermediates(x, [len(self.stages) - 1])[0]

    def forward_intermediates(
        self,
        x: Input,
        indices: int | Sequence[int] | None = None,
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
        take, last = take_indices(len(self.stages), indices)
        points, found = self.as_points(x), []
        points = points.with_feat(self.stem.relu(points.feat))
        for i, stage in enumerate(self.stages[: last + 1] if intermediates_only or stop_early else self.stages):
            points = stage(points)
            if i in take:
                found.append(points)
        return found if intermediates_only else (points, found)

    def before_classifier(self, x: Float[Tensor, "B C"]) -> Float[Tensor, "B K"]:
        for layer in cast(Iterable[LinearNorm], self.mlp):
            x = self.head_drop(layer.relu(x))
        return x

    def forward(self, x: Input) -> Float[Tensor, "B K"] | list[PointSet]:
        """Logits (B, num_classes) of clouds (B, N, D) or a PointSet; the points of all stages of a pyramid."""
        if self.pyramid:
            return cast(list[PointSet], self.forward_intermediates(x, intermediates_only=True))
        logits = self.forward_head(self.forward_features(x))
        assert isinstance(logits, Tensor)
        return logits

    # ---- timm's contract ----------------------------------------------------------------------------------------

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the stages after the last chosen one, and the classifier."""
        take, last = take_indices(len(self.stages), indices)
        self.stages = self.stages[: last + 1]
        if prune_head:
            self.reset_classifier(0)
        return take

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the layers of the stages in the backward pass instead of storing their activations."""
        for stage in cast(Iterable[PointMLPStage], self.stages):
            stage.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay: none beyond the vectors, which optimizers exclude anyway."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Groups of parameters for layer-wise learning rate decay."""
        return dict(stem=r"^stem", blocks=r"^stages\.(\d+)")


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Running statistics are not updated: the forward pass that is being recomputed has updated them."""
    norms = [m for m in module.modules() if isinstance(m, (nn.BatchNorm1d, nn.SyncBatchNorm))]
    before = [(norm, norm.momentum, cast(Tensor, norm.num_batches_tracked).clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, batches in before:
            norm.momentum = momentum
            cast(Tensor, norm.num_batches_tracked).copy_(batches)


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


def _create(variant: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return build(PointMLP, variant, pretrained, kwargs_filter=("img_size", "global_pool"), **kwargs)


@register_model
def pointmlp(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PointMLP: 13.24 M parameters with 40 classes."""
    return _create("pointmlp", pretrained, **kwargs)


@register_model
def pointmlp_elite(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PointMLP-elite: 0.72 M parameters with 40 classes."""
    elite = dict(dim=32, expansion=(2, 2, 2, 1), pre_blocks=(1, 1, 2, 1), pos_blocks=(1, 1, 2, 1), ratio=0.25)
    return _create("pointmlp_elite", pretrained, **(elite | kwargs))


@register_model
def pointmlp_coc(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PointMLP-CoC: 15.33 M parameters with 40 classes; `coc_head_dim` as in the released code ("max") unless given."""
    return _create("pointmlp_coc", pretrained, **(dict(coc_head_dim="max") | kwargs))
