"""Clusters of several blocks reduced to a few by k-means, as in figure 3 of HCFormer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pointmix.explain.blocks import groups_nothing, nearest_points, stage_of
from pointmix.explain.colors import palette
from pointmix.explain.page.scene import Scene
from pointmix.explain.page.view import Reduced, as_bytes, index
from pointmix.nn.stage import Assignment
from pointmix.utils.messages import counted

MAX_POINTS, MAX_FITTED = 16_384, 4096  # that are labeled; that k-means sees
MAX_CLUSTERS = len(palette())


def reduce_clusters(scene: Scene, assignments: Sequence[Assignment], clusters: int) -> Reduced | None:
    """Join clusters that are alike, across windows, heads and blocks; None if no block groups points.

    A point i is described by the clusters that it joined in each block b that groups points, and a cluster by the mean
    of its members' features at the block's input, f^b:

        z_i = [z_i^1, ..., z_i^B],   z_i^b = (1 / E) sum_e mean_{j in cluster(i, b, e)} f_j^b

    Each z^b has mean 0 and total variance 1 over the points, so that all blocks count alike. Points with the same
    clusters in all blocks have the same z, and so the same label. Scikit-learn's k-means with a fixed seed labels the
    points of the finest of these blocks (at most `MAX_POINTS` at random), by the size of the clusters; it is fitted to
    every n-th of them, `MAX_FITTED` at most.

    Args:
        clusters: k.
    """
    from sklearn.cluster import KMeans  # takes a second to import

    used = [assignment for assignment in assignments if not groups_nothing(assignment, 0)]
    if not used:
        return None
    finest = max((assignment.points for assignment in used), key=lambda points: len(points.pos))
    if len(finest.pos) > MAX_POINTS:
        chosen = torch.randperm(len(finest.pos), generator=torch.Generator().manual_seed(0))[:MAX_POINTS]
        finest = finest.to("cpu").subset(chosen)
    pos = finest.pos.double().cpu()
    nearest = {stage_of(a): nearest_points(a.points, 0, pos) for a in {stage_of(a): a for a in used}.values()}
    parts = [_described(assignment)[nearest[stage_of(assignment)]] for assignment in used]
    z = torch.cat([_scaled(part) for part in parts], dim=1).numpy()  # (P, sum of C)
    fitted = z[:: -(-len(z) // MAX_FITTED)]
    number = min(clusters, len({row.tobytes() for row in fitted}))
    label = KMeans(number, n_init=4, random_state=0).fit(fitted).predict(z)
    rank = np.argsort(np.argsort(-np.bincount(label, minlength=number), kind="stable"))
    return Reduced(
        name=f"{counted(len(used), 'block')}, k-means into {number}",
        label=rank[label].astype(np.uint8),
        nearest=index(nearest_points(finest, 0, scene.pos).numpy()),
        color=as_bytes(palette()[:number]),
    )


def _described(assignment: Assignment) -> Float[Tensor, "S C"]:
    """Mean features of the clusters that each point joined, averaged over heads."""
    feat, total = assignment.points.feat.float(), torch.zeros_like(assignment.points.feat, dtype=torch.float32)
    for head in assignment.center.T:
        number = len(assignment.center_pos)
        count = torch.bincount(head, minlength=number).clamp(min=1)[:, None]
        means = feat.new_zeros(number, feat.shape[1]).index_add_(0, head, feat) / count  # (K, C)
        total += means[head]
    return (total / assignment.center.shape[1]).cpu()


def _scaled(part: Float[Tensor, "P C"]) -> Float[Tensor, "P C"]:
    """With mean 0 and total variance 1 over the points."""
    part = part - part.mean(0)
    return part / part.square().sum(1).mean().sqrt().clamp(min=1e-12)
