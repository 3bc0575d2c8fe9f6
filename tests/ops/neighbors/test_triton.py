from __future__ import annotations

import pytest
import torch

from pointmix.ops import use_backend
from pointmix.ops.neighbors import knn, knn_reference, repeat_first
from pointmix.ops.ragged import ptr_to_batch
from pointmix.ops.sampling import farthest_point_sampling, farthest_points_reference

pytest.importorskip("triton", reason="triton is not installed")
kernels = pytest.importorskip("pointmix.ops.neighbors.triton")
sampling_kernels = pytest.importorskip("pointmix.ops.sampling.triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PTR = torch.tensor([0, 300, 301, 340], device=DEVICE)


# On the CPU the interpreter takes seconds where a GPU takes none: here everything at once, on a GPU more in tests/ops.
def test_farthest_points(cloud):
    pos, ptr = (t.to(DEVICE) for t in cloud)
    start = ptr.diff() // 2
    with use_backend("triton"):
        index, out_ptr = farthest_point_sampling(pos, ptr, 9, start=start)
    assert torch.equal(index, farthest_points_reference(pos, ptr, out_ptr, start))


@pytest.mark.parametrize("k, query_ptr", [(3, [0, 2, 2, 5]), (20, [0, 0, 2, 5])])
def test_neighbors_in_a_ragged_batch_with_ties_and_few_points(k, query_ptr):
    lattice = torch.cartesian_prod(torch.arange(6.0), torch.arange(5.0)).flip(0)
    pos = torch.cat([torch.randn(40, 2), torch.ones(7, 2), lattice * 3 + 1000]).to(DEVICE)
    ptr, query_ptr = torch.tensor([0, 40, 47, 77], device=DEVICE), torch.tensor(query_ptr, device=DEVICE)
    queries = torch.cat([torch.randn(2, 2), lattice[[3, 8, 20]] * 3 + 1000]).to(DEVICE)
    with use_backend("triton"):
        index = knn(pos, ptr, queries, query_ptr, k)
    expected = knn_reference(pos, ptr, queries, query_ptr, k)
    assert torch.equal(index, repeat_first(expected, ptr.diff()[ptr_to_batch(query_ptr, 5)]))


def test_many_programs_of_queries():
    pos, ptr = torch.randn(3, 1, device=DEVICE), torch.tensor([0, 3], device=DEVICE)
    queries = torch.randn(140, 1, device=DEVICE)  # 64 a program
    query_ptr = torch.tensor([0, 140], device=DEVICE)
    with use_backend("triton"):
        assert torch.equal(knn(pos, ptr, queries, query_ptr, 2), knn_reference(pos, ptr, queries, query_ptr, 2))


def test_too_much_for_the_chip(monkeypatch):
    pos = torch.randn(340, 3, device=DEVICE)
    monkeypatch.setattr(sampling_kernels, "ON_CHIP", 256)
    with use_backend("triton"):
        with pytest.raises(ValueError, match="backend 'triton' takes sets of up to 256 points, got 300"):
            farthest_point_sampling(pos, PTR, 3)
        with pytest.raises(ValueError, match="backend 'triton' takes k of up to 512, got 600"):
            knn(pos, PTR, pos, PTR, 600)
