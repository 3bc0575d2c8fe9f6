from __future__ import annotations

import pytest
import torch

from pointmix.ops.neighbors import knn_reference, ties
from pointmix.ops.ragged import ptr_to_batch


def contrary(pos, ptr, query_pos, query_ptr, k):
    """A search that prefers the higher index among equals and is off by some rounding."""
    index = torch.zeros(len(query_pos), k, dtype=torch.int64)
    d = torch.full((len(query_pos), k), torch.inf, dtype=pos.dtype)
    for m, b in enumerate(ptr_to_batch(query_ptr, len(query_pos)).tolist()):
        x = pos[ptr[b] : ptr[b + 1]].flip(0)
        away = (x - query_pos[m]).square().sum(1) * (1 + torch.randn(len(x)) * 1e-7)
        values, order = away.sort()
        n = min(k, len(x))
        index[m, :n], d[m, :n] = int(ptr[b + 1]) - 1 - order[:n], values[:n]
    return index, d


@pytest.mark.parametrize("k, few", [(1, 0), (3, 0), (3, 2**18), (8, 0)])
def test_agrees_with_the_reference_form(monkeypatch, cloud, k, few):
    monkeypatch.setattr(ties, "FEW", few)
    pos, ptr = cloud
    query_pos = torch.cat([pos, pos[: ptr[1]] + 1e-3])
    query_ptr = ptr.clone()
    if len(ptr) > 2:
        query_pos = pos
    else:
        query_ptr[-1] = len(query_pos)
    index = ties.resolve_ties(contrary, pos, ptr, query_pos, query_ptr, k)
    reference = knn_reference(pos, ptr, query_pos, query_ptr, k)
    real = torch.arange(k) < ptr.diff()[ptr_to_batch(query_ptr, len(query_pos))][:, None]
    assert index.shape == reference.shape and torch.equal(index[real], reference[real])


def test_only_unclear_cases_are_asked_for_again(monkeypatch):
    pos, ptr = torch.randn(60, 3), torch.tensor([0, 60])
    widths = []

    def search(*arguments):
        widths.append((len(arguments[2]), arguments[4]))
        return contrary(*arguments)

    ties.resolve_ties(search, pos, ptr, pos + 0.01, ptr, 4)
    assert widths == [(60, 5)]
    for few, more in ((2**18, False), (0, True)):  # a few are left to the reference form
        monkeypatch.setattr(ties, "FEW", few)
        widths.clear()
        ties.resolve_ties(search, pos.round(), ptr, pos.round(), ptr, 4)
        assert (len(widths) > 1) == more and all(rows < 60 for rows, _ in widths[1:])
