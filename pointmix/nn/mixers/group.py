"""The clustering layer of PointMLP-CoC: context clustering of the neighbors of each anchor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pointmix.ops.group_cluster import cluster_group, cluster_group_reference
from pointmix.profile.macs import Macs, linear_macs
from pointmix.utils.ranges import COUNT


@runtime_checkable
class _Cluster(Protocol):
    """`cluster_group` or its reference form: of the neighbors and the parameters."""

    def __call__(
        self,
        x: Tensor,
        wq: Tensor,
        bq: Tensor,
        wv: Tensor,
        bv: Tensor,
        wp: Tensor,
        bp: Tensor,
        alpha: Tensor,
        beta: Tensor,
    ) -> Tensor: ...


class GroupCluster(nn.Module):
    """x + a projection of the clustering of each group of neighbors around its mean, see `cluster_group`.

    Args:
        dim: channels in and out.
        head_dim: channels of queries and values.
        neighbors: k, the rows of a group.
        reference: run the reference form.
    """

    def __init__(self, dim: int, *, head_dim: int, neighbors: int, reference: bool = False) -> None:
        super().__init__()
        COUNT.check(dim=dim, head_dim=head_dim, neighbors=neighbors)
        self.neighbors, self.reference = neighbors, reference
        self.query, self.value = nn.Linear(dim, head_dim), nn.Linear(dim, head_dim)
        self.proj = nn.Linear(head_dim, dim)
        self.alpha = nn.Parameter(torch.ones(1))
        self.beta = nn.Parameter(torch.zeros(1))

    def forward(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        return self._run(x, cluster_group_reference if self.reference else cluster_group)

    def folded(self) -> Callable[[Tensor], Tensor]:
        """`forward`, but without gradients it overwrites its input."""
        return partial(self._run, cluster=partial(cluster_group, overwrite=not torch.is_grad_enabled()))

    def _run(self, x: Tensor, cluster: _Cluster) -> Tensor:
        q, v, p = self.query, self.value, self.proj
        weights = q.weight, q.bias, v.weight, v.bias, p.weight, p.bias
        return cluster(x.unflatten(0, (-1, self.neighbors)), *weights, self.alpha, self.beta).flatten(0, 1)

    def weights(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "G k"]:
        """Similarity of each neighbor to the center of its group, sigmoid(alpha cos(q_n, c) + beta)."""
        q = self.query(x).unflatten(0, (-1, self.neighbors))  # (G, k, D)
        return torch.sigmoid(self.alpha * F.cosine_similarity(q, q.mean(1, keepdim=True), dim=-1) + self.beta)

    def macs(self, rows: int) -> Macs:
        """Multiply-adds of that many rows: three linear maps, and the similarities to the centers as products."""
        similarity = Macs(products=rows * self.query.out_features)
        return linear_macs(rows, self.query, self.value, self.proj) + similarity
