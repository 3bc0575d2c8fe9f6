from __future__ import annotations

import pytest
import torch
from torch import nn

from pointmix.engine import evaluate
from pointmix.engine.evaluate import check_input
from pointmix.tasks import Classify


class Table(nn.Module):
    """Logits that say the class written in the image, plus a dropout that would show in training mode."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(1.0)

    def forward(self, x):
        return self.drop(10.0 * nn.functional.one_hot(x[:, 0, 0, 0].long(), 7).float())


def batches(*sizes):
    for size in sizes:
        targets = torch.arange(size) % 7
        yield targets.float().view(-1, 1, 1, 1), targets


def test_uneven_batches_weigh_by_images():
    model = Table().train()
    wrong = (torch.zeros(1, 1, 1, 1), torch.tensor([3]))
    result = evaluate(model, [*batches(7, 2), wrong], task=Classify(7))
    assert result["top1"] == pytest.approx(9 / 10)
    right_loss = torch.log(torch.tensor(1 + 6 * torch.e**-10)).item()
    assert result["loss"] == pytest.approx((9 * right_loss + 10 + right_loss) / 10, rel=1e-5)
    assert model.training


def test_evaluation_mode_stays_and_no_gradient():
    model = Table().eval()
    seen = []
    model.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    evaluate(model, batches(3), task=Classify(7))
    assert not model.training and seen == [False]


def test_reduce_adds_processes():
    result = evaluate(Table(), batches(4), task=Classify(7), reduce=lambda sums: sums + torch.tensor([0, 4, 0, 4]))
    assert result["top1"] == 0.5 and result["top5"] == 1.0


def test_a_process_without_a_batch_takes_part():
    result = evaluate(Table(), [], task=Classify(7), reduce=lambda sums: sums + torch.tensor([1, 2, 3.0, 4]))
    assert result == {"top1": 0.25, "top5": 0.5, "loss": 0.75}


def test_images_that_a_model_cannot_take_are_refused_in_one_line():
    model = nn.Sequential(nn.Conv2d(3, 4, 7)).train()
    check_input(model, "net", in_chans=3, img_size=7)
    for channels, size in ((3, 6), (1, 7)):
        with pytest.raises(ValueError, match=f"net does not take images of {channels}x{size}x{size}: ") as e:
            check_input(model, "net", in_chans=channels, img_size=size)
        assert "\n" not in str(e.value) and model.training


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate(Table(), [], task=Classify(7))


def test_images_that_fit_into_no_memory_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^images of 3x99999999x99999999 do not fit into memory$"):
        check_input(nn.Conv2d(3, 4, 7), "net", in_chans=3, img_size=99_999_999)

    def explode(*_):
        torch.empty(10**17)

    net = nn.Conv2d(3, 4, 7)
    net.register_forward_hook(explode)
    with pytest.raises(ValueError, match=r"^net does not take images of 3x9x9: they need more memory than there is$"):
        check_input(net, "net", in_chans=3, img_size=9)
