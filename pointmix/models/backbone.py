"""One backbone for every family: stages of reduce, plan, blocks. A family is a configuration and its mixer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from timm.layers import Mlp, trunc_normal_
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from pointmix.layouts.cloud import SAMPLING, Cloud, canonical_order
from pointmix.models.inputs import as_points
from pointmix.nn.block import Block
from pointmix.nn.norm import PointNorm, Sets
from pointmix.nn.reducer import Reducer
from pointmix.nn.stage import Assignment, Stage
from pointmix.pointset import PointSet
from pointmix.profile.macs import Part, Size, add, linear_macs, norm_macs, parameters
from pointmix.utils.ranges import COUNT, NATURAL, NONNEGATIVE, PART, POSITIVE, check_choice

Input = Tensor | PointSet


class PointBackbone(nn.Module):
    """Image batches and point sets to logits or maps.

    Args:
        in_chans: channels of the input, without coordinates.
        num_classes: logits; 0 for none.
        depths, dims, mlp_ratios: blocks, width and MLP ratio of each stage.
        mixer: (stage, dim) -> mixer module, or None for blocks that do not cluster.
        folds, centers: windows a side and centers a side of a window, for each stage.
        stage: further arguments of each `Stage`, by its number.
        stem: kernel, stride and padding of the first reducer.
        reducer: makes the reducers between stages, with the arguments of `Reducer`. The stem is a `Reducer`.
        coords: append the points' coordinates to the input.
        coord_dims: how many coordinates a point has, 2 in images.
        coord_mode: where the pixels of an image batch are, see `PointSet.from_image`.
        keep: which cells of a partial image reducers keep, see `Reducer`: "area" as many as its points fill, so that
            the cost follows the points however they are scattered; "occupied" all that hold one.
        absent: what reducers read where a partial image has no point, see `Reducer`. A network trained on whole images
            keeps working on partial ones with keep="occupied", absent="nearest", which are no part of its weights.
        layout: "given" leaves lattices as they are, "cloud" runs their pixels as free points.
        sampling: how clouds are thinned out, see `Cloud`.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0.
        layer_scale: initial factor of every residual branch.
        global_pool: "avg", or "" for the classifier on every point, see `forward`.
        reference: build on the reference forms of the ops, for tests and benchmarks.
        pyramid: dense tasks: normalize every stage's output and return all four maps instead of logits.

    Raises:
        ValueError: if the per-stage settings differ in length.
    """

    def __init__(
        self,
        *,
        in_chans: int = 3,
        num_classes: int = 1000,
        depths: Sequence[int],
        dims: Sequence[int],
        mlp_ratios: Sequence[float],
        mixer: Callable[[int, int], nn.Module | None],
        folds: Sequence[int],
        centers: Sequence[int],
        stage: Callable[[int], dict] = lambda i: {},
        stem: tuple[int, int, int] = (4, 4, 0),
        reducer: Callable[..., nn.Module] = Reducer,
        coords: bool = True,
        coord_dims: int = 2,
        coord_mode: str = "inclusive",
        keep: str = "area",
        absent: str = "zero",
        layout: str = "given",
        sampling: str = "fps",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale: float = 1e-5,
        global_pool: str = "avg",
        reference: bool = False,
        pyramid: bool = False,
    ) -> None:
        super().__init__()
        check_stages(depths, dims=dims, mlp_ratios=mlp_ratios, folds=folds, centers=centers)
        COUNT.check(dims=dims, folds=folds, centers=centers, coord_dims=coord_dims)
        NATURAL.check(in_chans=in_chans, num_classes=num_classes, stem=stem)
        POSITIVE.check(mlp_ratios=mlp_ratios)
        PART.check(drop_rate=drop_rate, drop_path_rate=drop_path_rate)
        NONNEGATIVE.check(layer_scale=layer_scale)
        check_choice(known=("inclusive", "exclusive"), coord_mode=coord_mode)
        check_choice(known=("given", "cloud"), layout=layout)
        check_choice(known=SAMPLING, sampling=sampling)
        if not isinstance(stem, Sequence) or len(stem) != 3:
            raise ValueError(f"stem must be the kernel, stride and padding of the first reducer, got {stem!r}")
        if in_chans + coord_dims * coords < 1:
            raise ValueError(f"no input: in_chans {in_chans}, coords {coords}; clouds without features need coords")
        self.in_chans, self.num_classes, self.coords, self.coord_mode = in_chans, num_classes, coords, coord_mode
        self.coord_dims, self.layout, self.sampling = coord_dims, layout, sampling
        self.pyramid, self.global_pool = pyramid, _checked_pool(global_pool)
        self.num_features = self.head_hidden_size = dims[-1]

        rates = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist()
        stages, stride, self.feature_info = [], 1, []
        widths = [in_chans + coord_dims * coords, *dims]
        for i, (depth, dim) in enumerate(zip(depths, dims, strict=True)):
            kernel, step, padding = stem if i == 0 else (3, 2, 1)
            make = Reducer if i == 0 else reducer
            reduce = make(widths[i], dim, kernel=kernel, stride=step, padding=padding, keep=keep, absent=absent)
            blocks = [
                Block(
                    dim,
                    mixer(i, dim),
                    mlp_ratio=mlp_ratios[i],
                    drop_path=rates.pop(0),
                    layer_scale=layer_scale,
                    reference=reference,
                )
                for _ in range(depth)
            ]
            stages.append(Stage(reduce, blocks, folds=folds[i], centers=centers[i], **stage(i)))
            stride *= step
            self.feature_info.append(dict(num_chs=dim, reduction=stride, module=f"stages.{i}"))
        self.stages = nn.ModuleList(stages)
        self.norm = nn.ModuleList(map(PointNorm, dims)) if pyramid else PointNorm(dims[-1])
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(dims[-1], num_classes) if num_classes and not pyramid else nn.Identity()
        self.apply(_init_weights)

    # ---- forward ------------------------------------------------------------------------------------------------

    def as_points(self, x: Input) -> PointSet:
        """The input with its coordinates as features, in the precision of the weights."""
        dims = self.coord_dims if self.coords else None
        fit = dict(dtype=self.stages[0].reducer.weight.dtype, in_chans=self.in_chans, coord_dims=dims)
        if self._is_map(x):
            return as_points(x, **fit, coord_mode=self.coord_mode, coords=self.coords)
        x = as_points(x, **fit, coord_mode=self.coord_mode)
        if self.layout == "cloud" or isinstance(x.layout, Cloud):
            order = canonical_order(x.pos, x.feat, x.ptr)
            x = PointSet(x.pos[order], x.feat[order], x.ptr, Cloud(self.sampling))
        return x.with_feat(torch.cat([x.feat, x.pos.to(x.feat.dtype)], dim=1)) if self.coords else x

    def forward_features(self, x: Input) -> Input | list[Input]:
        """Normalized features of the last stage: (B, C, H, W) for an image batch (unless it runs as a cloud), else a
        PointSet; a list, one for each stage, of a pyramid."""
        return self._features(x, as_map=self._is_map(x))

    def _is_map(self, x: Input) -> bool:
        return isinstance(x, Tensor) and x.ndim == 4 and self.layout == "given"

    def _features(self, x: Input, as_map: bool) -> Input | list[Input]:
        if self.pyramid:
            return self._intermediates(self.as_points(x), range(len(self.stages)), norm=True, as_map=as_map)[1]
        points = self.as_points(x)
        for stage in self.stages:
            points = stage(points)
        points = self._normed(points, len(self.stages) - 1)
        return points.to_image() if as_map else points

    def _normed(self, points: PointSet, stage: int) -> PointSet:
        """Normalized as the output of this stage; as it is where pruning took the norm away."""
        norm = self.norm[stage] if self.pyramid else self.norm
        return points if isinstance(norm, nn.Identity) else points.with_feat(norm(points.feat, Sets.of(points)))

    def forward_head(self, x: Input, pre_logits: bool = False) -> Float[Tensor, "B K"] | Input:
        """Mean over the points of each set, then the classifier; without pooling the classifier on every point."""
        points = x if isinstance(x, PointSet) else PointSet.from_batch(x)
        feat = self.head_drop(Sets.of(points).mean(points.feat) if self.global_pool else points.feat)
        feat = feat if pre_logits else self.head(feat)
        if self.global_pool:
            return feat
        points = points.with_feat(feat)
        return points if isinstance(x, PointSet) else points.to_image()

    def forward(self, x: Input) -> Float[Tensor, "B K"] | Input | list[Input]:
        """Logits (B, num_classes) of images (B, C, H, W), clouds (B, N, D) or a PointSet; the four maps of a pyramid.

        Without pooling the logits of every point: a map (B, num_classes, H', W') of an image batch (unless it runs as a
        cloud), else a PointSet that has them as features.
        """
        if self.pyramid:
            return self.forward_features(x)
        return self.forward_head(self._features(x, as_map=self._is_map(x) and not self.global_pool))

    def explain(self, x: Input) -> list[Assignment]:
        """What every block clusters when the model sees `x`."""
        points, found = self.as_points(x), []
        for i, stage in enumerate(self.stages):
            points, more = stage.explain(points, f"stages.{i}")
            found += more
        return found

    def parts(self, points: PointSet) -> Iterator[Part]:
        """Parameters and multiply-adds of each stage and the head for one set; only the reducers run."""
        sizes = []
        for i, stage in enumerate(self.stages):
            before, points = len(points.pos), stage.reducer(points)
            size = Size.of(before, points, stage.plan(points)[0])
            sizes.append(size)
            macs = stage.reducer.macs(size) + add(block.macs(size) for block in stage.blocks)
            yield Part(f"stage {i + 1}", points.feat.shape[1], parameters(stage), macs, size)
        norms = list(self.norm) if isinstance(self.norm, nn.ModuleList) else [self.norm]
        width = [sum(p.numel() for p in norm.parameters()) // 2 for norm in norms]  # 0 for an Identity
        macs = add(norm_macs(size.points, dim) for size, dim in zip(sizes[-len(norms) :], width, strict=True))
        if isinstance(self.head, nn.Linear):
            macs += linear_macs(1 if self.global_pool == "avg" else sizes[-1].points, self.head)
        yield Part("norm, head", self.num_features, parameters(self.norm, self.head), macs)

    # ---- timm's contract ----------------------------------------------------------------------------------------

    def forward_intermediates(
        self,
        x: Input,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Input] | tuple[Input, list[Input]]:
        """Outputs of the chosen stages: maps (B, C, H, W) for an image batch, else PointSets.

        Args:
            indices: which stages, the last n for a number, all for None.
            norm: normalize the last stage's output (every stage's, in a pyramid).
            stop_early: do not run the stages after the last chosen one.
            output_fmt: "NCHW" only.
            intermediates_only: leave out the final features.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be 'NCHW', got {output_fmt!r}")
        take, last = feature_take_indices(len(self.stages), indices)
        as_map = self._is_map(x)
        points, found = self._intermediates(
            self.as_points(x), take, norm, as_map, stop=last if stop_early or intermediates_only else None
        )
        if intermediates_only:
            return found
        if not self.pyramid and (last == len(self.stages) - 1 or not stop_early):
            points = self._normed(points, len(self.stages) - 1)
        return points.to_image() if as_map else points, found

    def _intermediates(
        self, points: PointSet, take: Sequence[int], norm: bool, as_map: bool, stop: int | None = None
    ) -> tuple[PointSet, list[Input]]:
        found = []
        for i, stage in enumerate(self.stages[: None if stop is None else stop + 1]):
            points = stage(points)
            if i in take:
                out = self._normed(points, i) if norm and (self.pyramid or i == len(self.stages) - 1) else points
                found.append(out.to_image() if as_map else out)
        return points, found

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last chosen one, with the final norm, which fits the last of all stages only."""
        take, last = feature_take_indices(len(self.stages), indices)
        dropped = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if self.pyramid:
            self.norm = self.norm[: last + 1]
        elif prune_norm or dropped:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0)
        return take

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier, for other classes; 0 takes it away, and a pyramid never has one.

        Raises:
            ValueError: if there is no such pooling, or a pyramid is asked to classify.
        """
        if global_pool is not None:
            self.global_pool = _checked_pool(global_pool)
        NATURAL.check(num_classes=num_classes)
        if self.pyramid and num_classes:
            raise ValueError(f"a pyramid gives maps and has no classifier, got num_classes {num_classes}")
        self.num_classes = num_classes
        like = self.stages[0].reducer.weight
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        _init_weights(self)
        self.head.to(like.device, like.dtype)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks in the backward pass instead of keeping what is inside them."""
        for stage in self.stages:
            stage.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that must not decay: none beyond the vectors that optimizers leave out anyway."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict:
        """Layers for learning rates that fall with depth."""
        return dict(
            stem=r"^stages\.0\.reducer",
            blocks=r"^stages\.(\d+)"
            if coarse
            else [(r"^stages\.(\d+)\.reducer", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)],
        )


def check_stages(depths: Sequence[int], **settings: Sequence) -> None:
    """Refuse depths that are no counts of blocks, and settings without a value for each stage."""
    COUNT.check(depths=depths)
    for name, value in {"depths": depths, **settings}.items():
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise ValueError(f"{name} must be a list with a value for each stage, got {value!r}")
        if len(value) != len(depths):
            raise ValueError(f"{name} has {len(value)} values for {len(depths)} stages: {tuple(value)}")


def _checked_pool(global_pool: str) -> str:
    if global_pool not in ("avg", ""):
        raise ValueError(f"global_pool must be 'avg' or '', got {global_pool!r}")
    return global_pool


def _init_weights(module: nn.Module) -> None:
    """Truncated normal for MLPs and classifiers; reducers and mixers keep the uniform default of a convolution."""
    if isinstance(module, Mlp):
        layers = [module.fc1, module.fc2]
    elif isinstance(module, PointBackbone):
        layers = [module.head] if isinstance(module.head, nn.Linear) else []
    else:
        return
    for layer in layers:
        trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
