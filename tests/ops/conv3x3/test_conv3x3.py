"""Winograd's algorithm against `torch.nn.functional.conv2d`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from pointmix.ops import conv3x3 as ops
from pointmix.ops import use_backend
from pointmix.ops.conv3x3 import (
    conv3x3,
    conv3x3_of_maps,
    conv3x3_of_points,
    conv3x3_of_points_reference,
    conv3x3_reference,
    grid_tiles,
)

module = pytest.importorskip("pointmix.ops.conv3x3.numba", reason="torch's library lacks MKL", exc_type=ImportError)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Everything is large enough, and some tiles are left over."""
    monkeypatch.setattr(ops, "MIN_CELLS", 0)
    monkeypatch.setattr(ops, "MIN_CHANNELS", 0)
    monkeypatch.setattr(module, "TILES", 6)


def arguments(size: tuple[int, int, int], c: int, k: int) -> list[torch.Tensor]:
    return [torch.randn(shape).requires_grad_() for shape in ((*size, c), (k, c, 3, 3), (k,))]


@pytest.fixture(params=[(1, True), (3, True), (3, False)], ids=["1", "3", "3, MKL alone"])
def threads(request: pytest.FixtureRequest, monkeypatch):
    """With and without oneDNN."""
    before, (number, onednn) = torch.get_num_threads(), request.param
    if not onednn:
        monkeypatch.setattr(module, "brgemm_float32_address", lambda: 0)
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 7), (3, 8, 6), (2, 9, 11)])
def test_values_and_gradients(size, bias, threads):
    args, weight = arguments(size, 20, 33), torch.randn(*size, 33)
    args = args if bias else args[:2]
    exact = [t.detach().double().requires_grad_() for t in args]
    got, expected = conv3x3(*args, *[None] * (not bias)), conv3x3_reference(*exact, *[None] * (not bias))
    assert got.grad_fn.name() != expected.grad_fn.name()  # another way
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=2e-5)
    grads = torch.autograd.grad(got, args, weight), torch.autograd.grad(expected, exact, weight.double())
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-4)


def test_is_as_exact_as_torch():
    x, weight, bias = (t.detach() for t in arguments((2, 16, 16), 256, 64))
    exact = conv3x3_reference(x.double(), weight.double(), bias.double())
    error, usual = ((op(x, weight, bias) - exact).abs().mean() for op in (conv3x3, conv3x3_reference))
    assert error < 2 * usual


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_maps_in_both_memory_formats(form):
    x, weight, bias = torch.randn(2, 4, 6, 7).to(memory_format=form), torch.randn(3, 4, 3, 3), torch.randn(3)
    expected = F.conv2d(x, weight, bias, padding=1)
    torch.testing.assert_close(conv3x3_of_maps(x, weight, bias), expected, rtol=1e-5, atol=1e-5)


def test_equal_runs_are_equal():
    args = arguments((2, 13, 10), 8, 9)
    runs = [torch.autograd.grad(conv3x3(*args).square().sum(), args) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_a_map_does_not_depend_on_others():
    x, weight, bias = (t.detach() for t in arguments((3, 9, 8), 16, 5))
    together = conv3x3(torch.cat([x, torch.full_like(x[:1], torch.nan)]), weight, bias)
    alone = torch.cat([conv3x3(one[None], weight, bias) for one in x])
    exact = {"rtol": 0, "atol": 0} if module.brgemm_float32_address() else {}  # MKL's sums depend on the number of rows
    torch.testing.assert_close(together[:3], alone, **exact)


def test_only_gradients_that_are_needed(monkeypatch):
    x, weight, bias = (t.detach() for t in arguments((1, 4, 4), 3, 5))
    monkeypatch.setattr(module, "weight_gradient", None)
    conv3x3(x.requires_grad_(), weight, bias).sum().backward()
    assert x.grad is not None


def test_second_derivatives():
    args, found = [(t / 3).detach().requires_grad_() for t in arguments((1, 4, 4), 3, 5)], []
    for op in (conv3x3, conv3x3_reference):
        first = torch.autograd.grad(op(*args).square().sum(), args, create_graph=True)
        found.append(torch.autograd.grad(sum(d.square().sum() for d in first), args))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item())


def test_functional_derivatives_of_the_weight_only():
    x, weight, bias = (t.detach() for t in arguments((1, 4, 4), 3, 5))
    ours, theirs = (
        torch.func.grad(lambda w, op=op: op(x, w, bias).sum())(weight) for op in (conv3x3, conv3x3_reference)
    )
    torch.testing.assert_close(ours, theirs)


def test_no_sums_without_tiles(monkeypatch):
    """Each is as large as four of the weights."""
    x, tiles, held = torch.randn(24, 3), grid_tiles((1, 4, 6), torch.device("cpu")), []
    monkeypatch.setattr(module.torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(module, "run", lambda kernel, sizes, x, tiles, dy, du, *room: held.extend(du.zero_()))
    module.weight_gradient(x, tiles, torch.randn(24, 5))
    assert len(held) == 1  # of six tiles


def test_backward_pass_under_autocast():
    args, grads = arguments((1, 4, 4), 3, 5), []
    for enabled in (False, True):
        y = conv3x3(*args)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            grads.append(torch.autograd.grad(y, args, torch.ones_like(y)))
    assert all(map(torch.equal, *grads))


def test_without_onednn():
    args = [t.detach() for t in arguments((1, 4, 4), 3, 5)]
    with torch.backends.mkldnn.flags(enabled=False):
        torch.testing.assert_close(conv3x3(*args), conv3x3_reference(*args), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_kernels_get_no_wrong_operand(wrong, monkeypatch):
    monkeypatch.setattr(module, "run", pytest.fail)
    args = [t.detach() for t in arguments((1, 4, 4), 3, 5)]
    for bad in (args[wrong].double(), args[wrong][:, :-1] if wrong == 1 else args[wrong][..., :-1]):
        with pytest.raises((RuntimeError, TypeError)):  # torch, or a checked annotation, says what is wrong
            conv3x3(*args[:wrong], bad, *args[wrong + 1 :])


def test_small_maps_autocast_and_requests_are_for_torch(monkeypatch):
    monkeypatch.setattr(module, "run", pytest.fail)
    args = [t.detach() for t in arguments((1, 4, 4), 3, 5)]
    with use_backend("torch"):
        expected = conv3x3(*args)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv3x3(*args).dtype == torch.bfloat16
    for name in ("MIN_CELLS", "MIN_CHANNELS"):
        with monkeypatch.context() as patch:
            patch.setattr(ops, name, 17)
            assert torch.equal(conv3x3(*args), expected)


def test_forward_mode_derivatives():
    args = [t.detach() for t in arguments((1, 4, 4), 3, 5)]
    with forward_ad.dual_level():
        args[0] = forward_ad.make_dual(args[0], torch.randn(1, 4, 4, 3))
        found, expected = (forward_ad.unpack_dual(op(*args)).tangent for op in (conv3x3, conv3x3_reference))
    torch.testing.assert_close(found, expected)


def test_counts_the_operations_of_its_definition():
    args = arguments((2, 4, 5), 3, 7)
    for op in (conv3x3, conv3x3_reference):
        with FlopCounterMode(display=False) as counter:
            op(*args).sum().backward()
        assert counter.get_total_flops() == 3 * 2 * 9 * 2 * 4 * 5 * 3 * 7


def test_the_backward_pass_within_autocast():
    """Autocast would transform the weights in bfloat16, which the kernel would take for float32."""
    args = arguments((1, 4, 4), 8, 6)
    y, again = conv3x3(*args), conv3x3(*args)
    expected = torch.autograd.grad(y.square().sum(), args)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(again.square().sum(), args)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.fixture
def partial() -> tuple[torch.Tensor, torch.Tensor]:
    """The index and the tiles of some of the cells of a 5x6 map, in any order."""
    rank = torch.full((30,), 17)
    rank[torch.randperm(30)[:17]] = torch.randperm(17)
    index = F.pad(rank.view(5, 6), (1, 1, 1, 2), value=17)
    around = index[:7].unfold(0, 3, 1).unfold(1, 3, 1).reshape(30, 9)
    near = torch.empty(17, 9, dtype=torch.int64)
    near[rank[rank < 17]] = around[rank < 17]
    return near, index.unfold(0, 4, 2).unfold(1, 4, 2).reshape(9, 16)


def test_some_cells_of_a_map(partial, threads):
    args = [torch.randn(shape).requires_grad_() for shape in ((17, 20), (33, 20, 3, 3), (33,))]
    exact, weight = [t.detach().double().requires_grad_() for t in args], torch.randn(17, 33)
    got = conv3x3_of_points(args[0], *partial, *args[1:])
    expected = conv3x3_of_points_reference(exact[0], partial[0], *exact[1:])
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=2e-5)
    grads = torch.autograd.grad(got, args, weight), torch.autograd.grad(expected, exact, weight.double())
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-4)


def test_a_full_grid_in_any_order_is_a_grid():
    x, weight, bias = (t.detach() for t in arguments((2, 5, 6), 8, 9))
    order, tiles = torch.randperm(60), grid_tiles((2, 5, 6), x.device)
    tiles = torch.cat([order.argsort(), torch.tensor([60])])[tiles]
    found = module.conv3x3(x.flatten(0, 2)[order], tiles, weight, bias)
    assert torch.equal(found, conv3x3(x, weight, bias).flatten(0, 2)[order])


@pytest.mark.parametrize("wrong", [-1, 13])
def test_tiles_are_of_the_points(wrong):
    tiles = grid_tiles((1, 3, 4), torch.device("cpu"))
    tiles[1, 2] = wrong
    with pytest.raises(IndexError, match=f"from 0 to 12, got {min(wrong, 0)} to {max(wrong, 12)}"):
        module.conv3x3(torch.randn(12, 3), tiles, torch.randn(5, 3, 3, 3), None)


@pytest.mark.parametrize(
    "wrong", [lambda t: t.int(), lambda t: t.double(), lambda t: t[:, :15], lambda t: t.flatten()],
    ids=["int32", "float64", "15", "flat"],
)  # fmt: skip
def test_kernels_get_no_wrong_tiles(wrong, monkeypatch):
    monkeypatch.setattr(module, "run", pytest.fail)
    tiles = wrong(grid_tiles((1, 3, 4), torch.device("cpu")))
    with pytest.raises(ValueError, match=r"expected tiles \(T, 16\) of int64"):
        module._run(None, torch.randn(12, 3), tiles, 5)
