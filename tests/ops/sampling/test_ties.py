from __future__ import annotations

import torch

from pointmix.ops.sampling.ties import start_first, without_repeats


def test_start_first():
    ptr = torch.tensor([0, 4, 5, 8])
    assert start_first(ptr, torch.tensor([2, 0, 0]), 8).tolist() == [2, 0, 1, 3, 4, 5, 6, 7]
    assert start_first(ptr, torch.tensor([0, 0, 2]), 8).tolist() == [0, 1, 2, 3, 4, 7, 5, 6]


def test_repetitions_give_way_to_what_is_left():
    ptr, out_ptr = torch.tensor([0, 5, 8]), torch.tensor([0, 4, 6])
    index = torch.tensor([3, 0, 0, 3, 6, 5])
    assert without_repeats(index, ptr, out_ptr).tolist() == [3, 0, 1, 2, 6, 5]
    assert index.tolist() == [3, 0, 0, 3, 6, 5]
    assert without_repeats(index[[0, 1, 4, 5]], ptr, torch.tensor([0, 2, 4])).tolist() == [3, 0, 6, 5]
