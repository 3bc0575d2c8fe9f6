"""The backbone of the CoC, FEC and HCFormer families: stages of reducer, plan and blocks. A mixer makes a family."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from numbers import Integral
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from timm.layers import trunc_normal_
from torch import Tensor, nn

from pointmix.layouts.cloud import SAMPLING, Cloud, canonical_order
from pointmix.models.inputs import as_points
from pointmix.models.registry import take_indices
from pointmix.nn.block import Block, Mlp
from pointmix.nn.heads.classify import ClassifierBase, to_map
from pointmix.nn.mixers.base import MixerFactory
from pointmix.nn.norm import PointNorm, SetIndex
from pointmix.nn.reducer import Reducer
from pointmix.nn.stage import Assignment, Stage, StageOptions
from pointmix.pointset import PointSet
from pointmix.profile.macs import Macs, Part, Size, add, linear_macs, norm_macs, parameters
from pointmix.utils.ranges import COUNT, FRACTION_BELOW_1, NATURAL, NONNEGATIVE, POSITIVE, check_choice

Input = Tensor | PointSet


@runtime_checkable
class Reduction(Protocol):
    """What a stage and the multiply-add counts need of a reducer."""

    def __call__(self, points: PointSet) -> PointSet: ...
    def macs(self, size: Size) -> Macs: ...


@runtime_checkable
class ReducerFactory(Protocol):
    """Makes a reducer, see `Reducer`."""

    def __call__(
        self, in_dim: int, out_dim: int, /, *, kernel: int, stride: int, padding: int, keep_cells: str, absent: str
    ) -> nn.Module: ...


class PointBackbone(ClassifierBase):
    """Image batches and point sets to logits or maps.

    Args:
        in_chans: channels of the input, without coordinates.
        num_classes: logits; 0 for none.
        depths, dims, mlp_ratios: blocks, width and MLP ratio of each stage.
        mixer: (stage, dim) -> the mixer of one block, see `pointmix.nn.mixers.base`; None for blocks without mixer.
        windows_per_side, centers_per_side: number of windows along each side, and of centers along each side of a
            window, for each stage.
        stage_options: (stage) -> optional arguments of this `Stage`.
        stem: kernel, stride and padding of the first reducer.
        reducer: makes the reducers between stages, with the arguments of `Reducer`. The stem is a `Reducer`.
        coords: append the points' coordinates to the input.
        coord_dims: number of coordinates of a point, 2 in images.
        coord_mode: coordinates of the pixels of an image batch, see `PointSet.from_image`.
        keep_cells: which cells of a partial image reducers keep, see `Reducer`: "area" as many as its points fill, so
            that the cost follows the number of points however they are scattered; "occupied" all that hold a point.
        absent: what reducers read where a partial image has no point, see `Reducer`. A network trained on whole images
            works on partial ones with keep_cells="occupied", absent="nearest". No weight depends on either.
        layout: "given" leaves images on their grids, "cloud" runs their pixels as free points.
        sampling: how anchors of clouds are sampled, see `Cloud`.
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
        mixer: MixerFactory,
        windows_per_side: Sequence[int],
        centers_per_side: Sequence[int],
        stage_options: Callable[[int], StageOptions] = lambda stage: StageOptions(),
        stem: Sequence[int] = (4, 4, 0),
        reducer: ReducerFactory = Reducer,
        coords: bool = True,
        coord_dims: int = 2,
        coord_mode: str = "inclusive",
        keep_cells: str = "area",
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
        per_side = dict(windows_per_side=windows_per_side, centers_per_side=centers_per_side)
        check_stages(depths, dims=dims, mlp_ratios=mlp_ratios, **per_side)
        COUNT.check(dims=dims, coord_dims=coord_dims, **per_side)
        NATURAL.check(in_chans=in_chans, num_classes=num_classes, stem=stem)
        POSITIVE.check(mlp_ratios=mlp_ratios)
        FRACTION_BELOW_1.check(drop_path_rate=drop_path_rate)
        NONNEGATIVE.check(layer_scale=layer_scale)
        check_choice(known=("inclusive", "exclusive"), coord_mode=coord_mode)
        check_choice(known=("given", "cloud"), layout=layout)
        check_choice(known=SAMPLING, sampling=sampling)
        if not isinstance(stem, Sequence) or len(stem) != 3:
            raise ValueError(f"stem must be the kernel, stride and padding of the first reducer, got {stem!r}")
        if in_chans + coord_dims * coords < 1:
            raise ValueError(f"no input: in_chans {in_chans}, coords {coords}; clouds without features need coords")
        self.in_chans, self.coords, self.coord_mode, self.coord_dims = in_chans, coords, coord_mode, coord_dims
        self.layout, self.sampling, self.pyramid, self.num_features = layout, sampling, pyramid, dims[-1]

        rates = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist()
        stages, stride, self.feature_info = [], 1, []
        widths = [in_chans + coord_dims * coords, *dims]
        for i, (depth, dim) in enumerate(zip(depths, dims, strict=True)):
            kernel, step, padding = stem if i == 0 else (3, 2, 1)
            make = Reducer if i == 0 else reducer
            cells = dict(keep_cells=keep_cells, absent=absent)
            reduce = make(widths[i], dim, kernel=kernel, stride=step, padding=padding, **cells)
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
            windows, centers = windows_per_side[i], centers_per_side[i]
            stage = Stage(reduce, blocks, windows_per_side=windows, centers_per_side=centers, **stage_options(i))
            stages.append(stage)
            stride *= step
            self.feature_info.append(dict(num_chs=dim, reduction=stride, module=f"stages.{i}"))
        self.stages = nn.ModuleList(stages)
        self.norm: nn.Module = nn.ModuleList(map(PointNorm, dims)) if pyramid else PointNorm(dims[-1])
        self.set_classifier(dims[-1], 0 if pyramid else num_classes, global_pool=global_pool, drop_rate=drop_rate)
        self.apply(_init_mlp)
        self.init_classifier()

    # ---- forward ------------------------------------------------------------------------------------------------

    def as_points(self, x: Input) -> PointSet:
        """The input with its coordinates appended to the features, in the dtype of the weights."""
        dims = self.coord_dims if self.coords else None
        dtype = next(self.parameters()).dtype
        convert = partial(
            as_points, x, dtype=dtype, in_chans=self.in_chans, coord_dims=dims, coord_mode=self.coord_mode
        )
        if self._is_map(x):
            return convert(coords=self.coords)
        x = convert()
        if self.layout == "cloud" or isinstance(x.layout, Cloud):
            order = canonical_order(x.pos, x.feat, x.ptr)
            x = PointSet(x.pos[order], x.feat[order], x.ptr, Cloud(self.sampling))
        return x.with_feat(torch.cat([x.feat, x.pos.to(x.feat.dtype)], dim=1)) if self.coords else x

    def forward_features(self, x: Input) -> Input | list[Input]:
        """Normalized features of the last stage: (B, C, H, W) for an image batch (unless it runs as a cloud), else a
        PointSet; a list, one for each stage, of a pyramid."""
        if self.pyramid:
            points, stages = self.as_points(x), range(len(self.stages))
            return self._intermediates(points, stages, norm=True, as_map=self._is_map(x))[1]
        points = self._features(x)
        return to_map(points) if self._is_map(x) else points

    def _is_map(self, x: Input) -> bool:
        return isinstance(x, Tensor) and x.ndim == 4 and self.layout == "given"

    def _features(self, x: Input) -> PointSet:
        points = self.as_points(x)
        for stage in self.stages:
            points = stage(points)
        return self._normed(points, len(self.stages) - 1)

    def _normed(self, points: PointSet, stage: int) -> PointSet:
        """The normalized output of this stage; unchanged if pruning removed the norm."""
        norm = self.norm[stage] if isinstance(self.norm, nn.ModuleList) else self.norm
        return points if isinstance(norm, nn.Identity) else points.with_feat(norm(points.feat, SetIndex.of(points)))

    def forward(self, x: Input) -> Float[Tensor, "B K"] | Input | list[Input]:
        """Logits (B, num_classes) of images (B, C, H, W), clouds (B, N, D) or a PointSet; the four maps of a pyramid.

        Without pooling the logits of every point: a map (B, num_classes, H', W') of an image batch (unless it runs as a
        cloud), else a PointSet that has them as features.
        """
        if self.pyramid:
            return self.forward_features(x)
        out = self.forward_head(self._features(x))
        return to_map(out) if self._is_map(x) and isinstance(out, PointSet) else out

    def explain(self, x: Input) -> list[Assignment]:
        """The assignment of every block whose mixer clusters, for the input `x`; empty if none does."""
        points, found = self.as_points(x), []
        for i, stage in enumerate(cast(Iterable[Stage], self.stages)):
            points, more = stage.explain(points, f"stages.{i}")
            found += more
        return found

    def parts(self, points: PointSet) -> Iterator[Part]:
        """Parameters and multiply-adds of each stage and the head for one set; only the reducers run."""
        sizes = []
        for i, stage in enumerate(cast(Iterable[Stage], self.stages)):
            reducer, blocks = cast(Reduction, stage.reducer), cast(Iterable[Block], stage.blocks)
            before, points = len(points.pos), reducer(points)
            size = Size.of(before, points, stage.plan(points))
            sizes.append(size)
            macs = reducer.macs(size) + add(block.macs(size) for block in blocks)
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
        indices: int | Sequence[int] | None = None,
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
        take, last = take_indices(len(self.stages), indices)
        stop = last if stop_early or intermediates_only else None
        points, found = self._intermediates(self.as_points(x), take, norm=norm, as_map=self._is_map(x), stop=stop)
        if intermediates_only:
            return found
        if not self.pyramid and (last == len(self.stages) - 1 or not stop_early):
            points = self._normed(points, len(self.stages) - 1)
        return to_map(points) if self._is_map(x) else points, found

    def _intermediates(
        self, points: PointSet, take: Sequence[int], *, norm: bool, as_map: bool, stop: int | None = None
    ) -> tuple[PointSet, list[Input]]:
        found: list[Input] = []
        for i, stage in enumerate(self.stages[: None if stop is None else stop + 1]):
            points = stage(points)
            if i in take:
                out = self._normed(points, i) if norm and (self.pyramid or i == len(self.stages) - 1) else points
                found.append(to_map(out) if as_map else out)
        return points, found

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the stages after the last chosen one; if there are any, also the final norm, which is for the last."""
        take, last = take_indices(len(self.stages), indices)
        dropped = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if isinstance(self.norm, nn.ModuleList):
            self.norm = self.norm[: last + 1]
        elif prune_norm or dropped:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0)
        return take

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier for other classes; 0 removes it, and a pyramid never has one.

        Raises:
            ValueError: for an unknown pooling, negative `num_classes`, or classes of a pyramid.
        """
        if self.pyramid and num_classes:
            raise ValueError(f"a pyramid returns maps and has no classifier, got num_classes {num_classes}")
        super().reset_classifier(num_classes, global_pool)

    def init_classifier(self) -> None:
        if isinstance(self.head, nn.Linear):
            trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks in the backward pass instead of storing their activations."""
        for stage in cast(Iterable[Stage], self.stages):
            stage.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay: none beyond the vectors, which optimizers exclude anyway."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        """Groups of parameters for layer-wise learning rate decay."""
        return dict(
            stem=r"^stages\.0\.reducer",
            blocks=r"^stages\.(\d+)"
            if coarse
            else [(r"^stages\.(\d+)\.reducer", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)],
        )


def per_stage(value: int | Sequence[int], stages: int) -> Sequence[int]:
    """A setting for each stage, from one number for all or a list."""
    return (int(value),) * stages if isinstance(value, Integral) else cast(Sequence[int], value)


def check_stages(depths: Sequence[int], **settings: Sequence[object]) -> None:
    """Raise ValueError unless depths are numbers of blocks and every setting has a value for each stage."""
    COUNT.check(depths=depths)
    for name, value in {"depths": depths, **settings}.items():
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise ValueError(f"{name} must be a list with a value for each stage, got {value!r}")
        if len(value) != len(depths):
            raise ValueError(f"{name} has {len(value)} values for {len(depths)} stages: {tuple(value)}")


def _init_mlp(module: nn.Module) -> None:
    """Truncated normal for MLPs; reducers and mixers keep the default of their layers."""
    if isinstance(module, Mlp):
        for layer in (module.fc1, module.fc2):
            trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
