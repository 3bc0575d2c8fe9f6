"""The groups of PointMLP-CoC as clusters: one center for the neighbors of each anchor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.models.pointmlp import PointMLP, PointMLPStage
from pointmix.nn.grouper import Groups
from pointmix.nn.mixers.group import GroupCluster
from pointmix.nn.stage import Assignment
from pointmix.ops.neighbors import knn
from pointmix.pointset import PointSet


def group_assignments(model: PointMLP, x: PointSet) -> list[Assignment]:
    """The assignments of the `GroupCluster` layers of each stage, with its layers run as `PointMLPStage.all_groups`
    does. Empty for PointMLP, which does not cluster.

    A group is a window with one center, and a point may be in several: shown is the group in which its weight is the
    largest. A point in none has the nearest anchor's, with weight 0.
    """
    points, found = model.as_points(x), []
    points = points.with_feat(F.relu(model.stem(points.feat)))
    for i, stage in enumerate(cast(Iterable[PointMLPStage], model.stages)):
        groups = Groups.of(points, stage.neighbors)
        rows = stage.group_features(points.feat, groups)
        block = 0
        for layer in stage.group_layers:
            if isinstance(layer, GroupCluster):
                name = f"stages.{i}.blocks.{block}"
                found.append(_assignment(name, points, groups, layer.weights(rows)))
                block += 1
            rows = layer(rows)
        feat = rows.unflatten(0, (-1, stage.neighbors)).amax(1)
        feat = torch.nn.Sequential(*stage.pos)(feat)
        points = groups.as_points(points, feat)
    return found


def _assignment(name: str, points: PointSet, groups: Groups, weight: Float[Tensor, "G k"]) -> Assignment:
    group = torch.arange(len(weight), device=weight.device)[:, None].expand_as(weight)
    member, group, weight = groups.neighbors.flatten(), group.flatten(), weight.flatten()
    order = weight.argsort(stable=True)  # of several writes to one place the last is wanted: see _last
    center = knn(points.pos[groups.anchor], groups.ptr, points.pos, points.ptr, 1)[:, 0]  # (N,)
    best = weight.new_zeros(len(points.pos))
    place = _last(member[order], len(points.pos))
    inside = place >= 0
    center[inside], best[inside] = group[order][place[inside]], weight[order][place[inside]]
    window = center
    return Assignment(name, center[:, None], best[:, None], window, points.pos[groups.neighbors].mean(1), points)


def _last(values: Int[Tensor, "M"], number: int) -> Int[Tensor, "N"]:
    """Of each number below `number` the last place where it is among the values; -1 where it is not."""
    places = torch.arange(len(values), device=values.device)
    last = torch.full((number,), -1, device=values.device)
    return last.scatter_reduce(0, values, places, "amax")
