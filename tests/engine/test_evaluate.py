from __future__ import annotations

import pytest
import torch
from torch import nn

from pointmix.engine.evaluate import evaluate
from pointmix.tasks.classification.metrics import TopAccuracy


class Table(nn.Module):
    """Logits that say the class written in the image, plus a dropout that would show in training mode."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(1.0)

    def forward(self, x):
        return self.drop(10.0 * nn.functional.one_hot(x[:, 0, 0, 0].long(), 7).float())


class Others:
    """Other processes, with these sums."""

    def __init__(self, *sums):
        self.sums = torch.tensor(sums, dtype=torch.float64)

    def sum(self, x):
        return x + self.sums

    def gather(self, items):
        return items


def batches(*sizes):
    for size in sizes:
        targets = torch.arange(size) % 7
        yield targets.float().view(-1, 1, 1, 1), targets


def test_uneven_batches_weigh_by_images():
    model = Table().train()
    wrong = (torch.zeros(1, 1, 1, 1), torch.tensor([3]))
    result = evaluate(model, [*batches(7, 2), wrong], metric=TopAccuracy())
    assert result["top1"] == pytest.approx(9 / 10)
    right_loss = torch.log(torch.tensor(1 + 6 * torch.e**-10)).item()
    assert result["loss"] == pytest.approx((9 * right_loss + 10 + right_loss) / 10, rel=1e-5)
    assert model.training


def test_evaluation_mode_stays_and_no_gradient():
    model = Table().eval()
    grad = []
    model.register_forward_hook(lambda *_: grad.append(torch.is_grad_enabled()))
    evaluate(model, batches(3), metric=TopAccuracy())
    assert not model.training and grad == [False]


def test_processes_are_added():
    result = evaluate(Table(), batches(4), metric=TopAccuracy(), processes=Others(0, 4, 0, 4))
    assert result["top1"] == 0.5 and result["top5"] == 1.0


def test_a_process_without_a_batch_takes_part():
    result = evaluate(Table(), [], metric=TopAccuracy(), processes=Others(1, 2, 3, 4))
    assert result == {"top1": 0.25, "top5": 0.5, "loss": 0.75}


def test_a_metric_starts_anew():
    metric = TopAccuracy()
    first = evaluate(Table(), batches(4), metric=metric)
    assert evaluate(Table(), batches(4), metric=metric) == first


def test_a_batch_may_be_any_tree():
    class Mean:
        def reset(self):
            self.values = []

        def update(self, model, batch):
            self.values.append(model(batch["x"][0]).mean().item())

        def combine(self, processes):
            self.values = processes.gather(self.values)

        def compute(self):
            return {"mean": sum(self.values) / len(self.values)}

    trees = [{"x": [torch.ones(2)], "name": "a"}, {"x": [torch.zeros(2)], "name": "b"}]
    assert evaluate(nn.Identity(), trees, metric=Mean()) == {"mean": 0.5}


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate(Table(), [], metric=TopAccuracy())
