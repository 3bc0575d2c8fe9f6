from __future__ import annotations

import torch

from pointmix.ops.fast import scipy as ours
from pointmix.ops.neighbors import knn_plain

PTR = torch.tensor([0, 2, 30])


def test_search_keeps_the_sets_apart_and_marks_what_is_absent():
    pos, query_ptr = torch.randn(30, 3), torch.tensor([0, 4, 6])
    query_pos = torch.randn(6, 3)
    index, d = ours.search(pos, PTR, query_pos, query_ptr, 5)
    assert index.dtype == torch.int64 and d.dtype == torch.float64
    assert d[:4, 2:].isinf().all() and d[:4, :2].isfinite().all() and d[4:].isfinite().all()
    assert torch.equal(index[:4, :2].sort(1).values, torch.tensor([[0, 1]] * 4)) and (index[4:] >= 2).all()
    assert 0 <= index.min() and index.max() < 30
    torch.testing.assert_close(d[4:], (query_pos[4:, None] - pos[index[4:]]).double().square().sum(2))


def test_sets_without_queries():
    pos = torch.randn(30, 3)
    query_ptr = torch.tensor([0, 0, 3])
    assert torch.equal(ours.knn(pos, PTR, pos[:3], query_ptr, 4), knn_plain(pos, PTR, pos[:3], query_ptr, 4))


def test_positions_need_not_be_contiguous():
    pos = torch.randn(3, 30).t()
    assert torch.equal(ours.knn(pos, PTR, pos, PTR, 2), knn_plain(pos, PTR, pos, PTR, 2))
