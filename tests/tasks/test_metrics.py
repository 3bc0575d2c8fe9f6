from __future__ import annotations

import torch
from torch import nn

from pointmix.tasks.metrics import SumMetric


class Total(SumMetric):
    """Sum and number of the values of a batch."""

    def __init__(self):
        super().__init__(2)

    def batch_sums(self, model, batch):
        return torch.stack([batch.sum(), torch.tensor(float(len(batch)))])

    def from_sums(self, sums):
        return {"mean": (sums[0] / sums[1]).item()}


class Two:
    """Two processes with the same sums."""

    def sum(self, x):
        return 2 * x

    def gather(self, items):
        return [*items, *items]


def test_sums_are_exact_where_float32_is_not():
    metric = Total()
    for value in (2.0**24, 1.0, 1.0, 1.0):
        metric.update(nn.Identity(), torch.tensor([value]))
    assert metric.sums.dtype == torch.float64 and metric.sums[0].item() == 2**24 + 3


def test_sums_add_over_batches_and_processes_and_are_reset():
    metric = Total()
    metric.update(nn.Identity(), torch.tensor([1.0, 2.0]))
    metric.update(nn.Identity(), torch.tensor([6.0]))
    metric.combine(Two())
    assert metric.sums.tolist() == [18, 6] and metric.compute() == {"mean": 3}
    metric.reset()
    assert metric.sums.tolist() == [0, 0]
