from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad

from pointmix.ops import use_backend
from pointmix.ops.lifted_loss import has_lifted_loss, lifted_loss, lifted_loss_reference

module = pytest.importorskip("pointmix.ops.lifted_loss.numba", reason="no numba", exc_type=ImportError)
IGNORE = -1


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest, monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(module, "MIN_LOGITS", 0)
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def arguments(points: int = 50, corners: int = 4, classes: int = 21, sets: int = 1) -> list[torch.Tensor]:
    feat = (torch.randn(sets, 9, classes) * 5).requires_grad_()
    index, weight = torch.randint(9, (points, corners)), torch.rand(points, corners)
    return [feat, index, weight, torch.randint(IGNORE, classes, (sets, points)), torch.rand(classes)]


def gradient(op, args: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    loss = op(*args, IGNORE)
    return loss, torch.autograd.grad(loss * 3, args[0])[0]


@pytest.mark.parametrize("sets", [1, 2, 6])
@pytest.mark.parametrize("points, corners, classes", [(50, 4, 21), (7, 1, 2), (1, 3, 1), (0, 4, 5)])
def test_value_and_gradient(points, corners, classes, sets, threads):
    args = arguments(points, corners, classes, sets)
    exact = [t.detach().double() if t.is_floating_point() else t for t in args]
    exact[0].requires_grad_()
    for ours, other in zip(gradient(lifted_loss, args), gradient(lifted_loss_reference, exact), strict=True):
        torch.testing.assert_close(ours.double(), other, rtol=1e-5, atol=1e-5)


def test_logits_far_apart():
    """Each class is the largest of some coarse points, and no logit of a point is near the largest of them."""
    feat = (torch.eye(4)[None] * 1000).requires_grad_()
    args = [feat, torch.arange(4)[None], torch.full((1, 4), 0.25), torch.tensor([[2]]), torch.ones(4)]
    for ours, other in zip(gradient(lifted_loss, args), gradient(lifted_loss_reference, args), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-6)


def test_equal_runs_are_equal(threads):
    args = arguments(300)
    first, second = (gradient(lifted_loss, args) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_so(bad):
    args = arguments()
    args[0] = args[0].detach().index_fill(1, torch.tensor([3]), bad).requires_grad_()
    loss, found = gradient(lifted_loss, args)
    read = args[1][args[3][0] != IGNORE]  # by labeled points
    assert loss.isnan() and torch.equal(found[0].isnan().any(1), torch.isin(torch.arange(9), read[(read == 3).any(1)]))


@pytest.mark.parametrize("label", [21, -2])
def test_wrong_labels(label):
    args = arguments()
    args[3][0, 7] = label
    with pytest.raises(ValueError, match=f"labels must be from 0 to 20, or -1, got {label}"):
        lifted_loss(*args, IGNORE)


@pytest.mark.parametrize("index", [9, -1])
def test_wrong_indices(index):
    args = arguments()
    args[1][3, 2] = index
    with pytest.raises(IndexError, match="expected indices from 0 to 8, got"):
        lifted_loss(*args, IGNORE)


def test_second_derivatives_are_refused():
    args = arguments()
    (first,) = torch.autograd.grad(lifted_loss(*args, IGNORE), args[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="no derivatives"):
        (first.sum() + args[0].square().sum()).backward()


@pytest.mark.parametrize("sets, threads, parts", [(3, 2, 6), (1, 5, 5), (16, 4, 16), (16, 63, 128)])
def test_few_gradients_are_held(sets, threads, parts, monkeypatch):
    held = []
    monkeypatch.setattr(module, "MIN_LOGITS", 0)
    monkeypatch.setattr(module.torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(module, "run", lambda kernel, sizes, *arrays: held.append(arrays[-1].flatten(0, 1)))
    lifted_loss(*arguments(sets=sets), IGNORE)
    assert len(held[0]) == parts


@pytest.mark.parametrize("wrong", [2, 3, 4])
def test_wrong_shapes(wrong):
    args = arguments()
    args[wrong] = args[wrong][..., :-1]
    with pytest.raises((ValueError, TypeError)):  # or a checked annotation says so
        lifted_loss(*args, IGNORE)


def test_where_it_is_computed():
    feat = torch.randn(3, 4)
    assert has_lifted_loss(feat) and not has_lifted_loss(feat.double())
    with use_backend("torch"):
        assert not has_lifted_loss(feat)
    with forward_ad.dual_level():
        assert not has_lifted_loss(forward_ad.make_dual(feat, feat))
