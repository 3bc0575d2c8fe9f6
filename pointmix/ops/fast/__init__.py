"""Other ways to the same neighborhoods and segments, one module a backend, imported when first used.

They have `farthest_points(pos, ptr, out_ptr, start)` and `knn(pos, ptr, query_pos, query_ptr, k)`, or one of the two,
with the arguments and results of the reference forms in `pointmix.ops.sampling` and `pointmix.ops.neighbors`, or the
functions of `pointmix.ops.scatter`. Triton's has `cluster_hard` and `cluster_soft` too, see `triton_cluster`.
"""
