"""Numerics on plain tensors: neighbors, sampling, segments, clustering, and the dispatch to their backends."""

from pointmix.ops import cells as _cells  # noqa: F401, registers operations
from pointmix.ops import context as _context  # noqa: F401, registers operations
from pointmix.ops.clustering import assign_hard, assign_soft, cluster_hard, cluster_soft, update_centers
from pointmix.ops.clustering.pool import cluster_pool
from pointmix.ops.dispatch import Backend, Implementation, register, use_backend
from pointmix.ops.explain import backends
from pointmix.ops.neighbors import ball_query, interpolate, knn
from pointmix.ops.ragged import batch_to_ptr, counts_to_ptr, ptr_to_batch
from pointmix.ops.sampling import farthest_point_sampling, grid_sampling, random_sampling
from pointmix.ops.segments import segment_max, segment_mean, segment_softmax, segment_sum

__all__ = [
    "Backend",
    "Implementation",
    "assign_hard",
    "assign_soft",
    "backends",
    "ball_query",
    "batch_to_ptr",
    "cluster_hard",
    "cluster_pool",
    "cluster_soft",
    "counts_to_ptr",
    "farthest_point_sampling",
    "grid_sampling",
    "interpolate",
    "knn",
    "ptr_to_batch",
    "random_sampling",
    "register",
    "segment_max",
    "segment_mean",
    "segment_softmax",
    "segment_sum",
    "update_centers",
    "use_backend",
]
