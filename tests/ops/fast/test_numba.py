from __future__ import annotations

import pytest
import torch

from pointmix.ops.fast import numba as ours
from pointmix.ops.neighbors import knn_plain
from pointmix.ops.ragged import offsets
from pointmix.ops.sampling import farthest_points_plain

SIZES = torch.tensor([400, 1, 90, 500])
PTR = offsets(SIZES)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def test_threads_share_the_sets(threads):
    pos, start, out_ptr = torch.randn(int(PTR[-1]), 3), SIZES - 1, offsets((SIZES + 1) // 2)
    picks = ours.farthest_points(pos, PTR, out_ptr, start)
    assert torch.equal(picks, farthest_points_plain(pos, PTR, out_ptr, start))
    assert torch.equal(ours.knn(pos, PTR, pos, PTR, 1), knn_plain(pos, PTR, pos, PTR, 1))


def test_threads_share_the_queries_of_one_set(threads):
    pos, ptr = torch.randn(700, 3), torch.tensor([0, 700])
    for queries in (pos, pos[:600], pos[100:], pos.flip(0) + 0.1):
        query_ptr = torch.tensor([0, len(queries)])
        assert torch.equal(ours.knn(pos, ptr, queries, query_ptr, 5), knn_plain(pos, ptr, queries, query_ptr, 5))


def test_sets_without_queries():
    pos, ptr, query_ptr = torch.randn(30, 3), torch.tensor([0, 10, 30]), torch.tensor([0, 0, 3])
    assert torch.equal(ours.knn(pos, ptr, pos[:3], query_ptr, 4), knn_plain(pos, ptr, pos[:3], query_ptr, 4))


def test_positions_need_not_be_contiguous():
    pos, ptr = torch.randn(3, 30).t(), torch.tensor([0, 30])
    assert torch.equal(ours.knn(pos, ptr, pos, ptr, 2), knn_plain(pos, ptr, pos, ptr, 2))
    out, start = torch.tensor([0, 9]), torch.tensor([4])
    assert torch.equal(ours.farthest_points(pos, ptr, out, start), farthest_points_plain(pos, ptr, out, start))
