from __future__ import annotations

import os
import threading

import pytest
import torch

from pointmix.ops.kernels import threads as module
from pointmix.ops.neighbors import knn_reference
from pointmix.ops.neighbors.numba import knn
from pointmix.ops.ragged import counts_to_ptr
from pointmix.ops.sampling import farthest_points_reference
from pointmix.ops.sampling.numba import farthest_points

SIZES = torch.tensor([400, 1, 90, 500])
PTR = counts_to_ptr(SIZES)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def test_threads_share_the_sets(threads):
    pos, start, out_ptr = torch.randn(int(PTR[-1]), 3), SIZES - 1, counts_to_ptr((SIZES + 1) // 2)
    picks = farthest_points(pos, PTR, out_ptr, start)
    assert torch.equal(picks, farthest_points_reference(pos, PTR, out_ptr, start))
    assert torch.equal(knn(pos, PTR, pos, PTR, 1), knn_reference(pos, PTR, pos, PTR, 1))


def test_threads_share_the_queries_of_one_set(threads):
    pos, ptr = torch.randn(700, 3), torch.tensor([0, 700])
    for queries in (pos, pos[:600], pos[100:], pos.flip(0) + 0.1):
        query_ptr = torch.tensor([0, len(queries)])
        assert torch.equal(knn(pos, ptr, queries, query_ptr, 5), knn_reference(pos, ptr, queries, query_ptr, 5))


def test_sets_without_queries():
    pos, ptr, query_ptr = torch.randn(30, 3), torch.tensor([0, 10, 30]), torch.tensor([0, 0, 3])
    assert torch.equal(knn(pos, ptr, pos[:3], query_ptr, 4), knn_reference(pos, ptr, pos[:3], query_ptr, 4))


def test_positions_need_not_be_contiguous():
    pos, ptr = torch.randn(3, 30).t(), torch.tensor([0, 30])
    assert torch.equal(knn(pos, ptr, pos, ptr, 2), knn_reference(pos, ptr, pos, ptr, 2))
    out, start = torch.tensor([0, 9]), torch.tensor([4])
    assert torch.equal(farthest_points(pos, ptr, out, start), farthest_points_reference(pos, ptr, out, start))


def test_large_work_is_done_in_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    used: set[int] = set()
    for size in (module.MIN_POINTS - 1, module.MIN_POINTS):
        used.clear()
        module.share(lambda task: used.add(threading.get_ident()), [0, 1], size)
        assert (threading.get_ident() in used) == (size < module.MIN_POINTS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forks beside threads, which is what is tested
def test_forked_processes_have_threads_of_their_own(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    pos, ptr = torch.randn(1200, 3), torch.tensor([0, 600, 1200])
    expected = knn(pos, ptr, pos, ptr, 4)
    if (child := os.fork()) == 0:
        os._exit(0 if torch.equal(knn(pos, ptr, pos, ptr, 4), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_views_that_are_negative_on_paper():
    pos, ptr = torch.randn(30, 3), torch.tensor([0, 30])
    assert torch.equal(knn(torch._neg_view(pos), ptr, -pos, ptr, 3), knn(pos, ptr, pos, ptr, 3))
