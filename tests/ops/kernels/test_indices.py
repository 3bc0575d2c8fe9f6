from __future__ import annotations

import pytest
import torch

from pointmix.ops.kernels.indices import check_indices


@pytest.mark.parametrize("index", [[[0, 3], [1, 2]], [[]]])
def test_within_the_size(index):
    check_indices(torch.tensor(index, dtype=torch.long), 4)


@pytest.mark.parametrize("index, size", [([0, 4], 4), ([-1, 2], 4), ([0], 0)])
def test_beyond_the_size(index, size):
    with pytest.raises(IndexError, match=f"expected indices from 0 to {size - 1}, got {min(index)} to {max(index)}"):
        check_indices(torch.tensor(index), size)
