"""What compiled forms of several operations share: numba's cache, threads, the k-d tree, operators of torch."""
