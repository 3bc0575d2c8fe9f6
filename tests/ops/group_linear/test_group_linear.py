from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad

from pointmix import PointSet
from pointmix.nn.grouper import Groups
from pointmix.ops.dispatch import use_backend
from pointmix.ops.group_linear import (
    EPS,
    difference_sums,
    group_linear_reference,
    group_rows,
    inverse_std,
    map_points,
    numba,
)

F64 = dict(dtype=torch.float64)


def groups_of(*sizes: int, k: int = 5) -> tuple[Groups, int]:
    points = PointSet.cat([PointSet.from_points(torch.randn(n, 3, **F64)) for n in sizes])
    return Groups.of(points, k), sum(sizes)


def at(groups: Groups) -> tuple:
    return groups.neighbors, groups.anchor, groups.batch, groups.num_sets


def fast(feat, groups, alpha, beta, weight):
    u, t = map_points(feat, groups.anchor, alpha, beta, weight)
    return group_rows(u, t, inverse_std(feat, *at(groups)), groups.neighbors, groups.anchor)


def test_mapping_first_changes_nothing():
    groups, total = groups_of(40, 3, 1, 17)
    inputs = [torch.randn(*s, **F64, requires_grad=True) for s in [(total, 4), (4,), (4,), (6, 8)]]
    feat, *weights = inputs
    reference = group_linear_reference(feat, *at(groups), *weights)
    assert reference.shape == (groups.neighbors.numel(), 6)
    ours = fast(feat, groups, *weights)
    torch.testing.assert_close(ours, reference)
    probe = torch.randn_like(reference)
    gradients = [torch.autograd.grad((out * probe).sum(), inputs) for out in (reference, ours)]
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)
    with torch.no_grad():  # works in place
        torch.testing.assert_close(fast(feat, groups, *weights), reference)


def test_compiled_sums_of_differences_and_their_gradients():
    groups, total = groups_of(40, 3, 17)
    feat, probe = torch.randn(total, 70, **F64, requires_grad=True), torch.randn(len(groups.anchor), 2, **F64)
    results = []
    for backend in ("torch", "numba"):
        with use_backend(backend):
            sums = difference_sums(feat, groups.neighbors, groups.anchor)
        results.append([sums, *torch.autograd.grad((sums * probe).sum(), feat)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("threads", [1, 3])
def test_equal_runs_are_equal(threads, monkeypatch):
    monkeypatch.setattr(numba, "MIN_NUMBERS", 0)
    groups, total = groups_of(40, 17)
    inputs = [torch.randn(*s, requires_grad=True) for s in [(total, 40), (40,), (40,), (70, 80)]]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    runs = [torch.autograd.grad(fast(inputs[0], groups, *inputs[1:]).square().sum(), inputs) for _ in range(2)]
    torch.set_num_threads(before)
    assert all(map(torch.equal, *runs))


def test_indices_of_32_bits():
    groups, total = groups_of(9)
    feat = torch.randn(total, 4, **F64, requires_grad=True)
    near, anchor = groups.neighbors, groups.anchor
    t, scale = torch.randn(len(anchor), 4, **F64), torch.ones(len(anchor), **F64)
    assert torch.equal(group_rows(feat, t, scale, near.int(), anchor.int()), group_rows(feat, t, scale, near, anchor))
    assert torch.equal(difference_sums(feat, near.int(), anchor.int()), difference_sums(feat, near, anchor))


def test_forward_mode_derivatives_of_what_is_trained():
    groups, total = groups_of(9)
    feat, tangent = torch.randn(total, 4, **F64, requires_grad=True), torch.randn(total, 4, **F64)
    near, anchor = groups.neighbors, groups.anchor
    _, found = torch.func.jvp(lambda x: difference_sums(x, near, anchor)[:, 0], (feat.detach(),), (tangent,))
    with forward_ad.dual_level():
        sums = difference_sums(forward_ad.make_dual(feat, tangent), near, anchor)[:, 0]
        assert torch.equal(forward_ad.unpack_dual(sums).tangent, found)


def test_bias():
    groups, total = groups_of(9)
    feat, alpha, beta, weight, bias = (torch.randn(*s, **F64) for s in [(total, 4), (4,), (4,), (6, 8), (6,)])
    for with_bias, without in zip(
        map_points(feat, groups.anchor, alpha, beta, weight, bias),
        map_points(feat, groups.anchor, alpha, beta, weight),
        strict=True,
    ):
        shift = bias if len(with_bias) == len(groups.anchor) else 0  # of the anchors' part
        torch.testing.assert_close(with_bias, without + shift)


@pytest.mark.parametrize("piece", [0, 1, 7])
def test_one_deviation_for_each_set(piece):
    groups, total = groups_of(40, 3, 17)
    feat = torch.randn(total, 4, **F64) + 5
    scale = inverse_std(feat, *at(groups), piece)
    d = feat[groups.neighbors] - feat[groups.anchor][:, None]
    for b in range(3):
        here = groups.batch == b
        torch.testing.assert_close(scale[here], (1 / (d[here].std() + EPS)).expand(int(here.sum())))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_differences_within_rounding_are_none(dtype):
    groups, total = groups_of(40)
    feat = torch.randn(1, 4, dtype=dtype).expand(total, 4)
    noisy = feat * (1 + torch.finfo(dtype).eps * torch.randint(-2, 3, (total, 4)))
    real = feat * (1 + 1000 * torch.finfo(dtype).eps * torch.randn(total, 4, dtype=dtype))
    assert (inverse_std(feat, *at(groups)) == 0).all() and (inverse_std(noisy, *at(groups)) == 0).all()
    assert (inverse_std(real, *at(groups)) > 0).all()


def test_gradients_are_finite_where_nothing_differs():
    groups, total = groups_of(8, 1)
    feat = torch.ones(total, 4, **F64, requires_grad=True)
    scale = inverse_std(feat, *at(groups))
    assert torch.autograd.grad(scale.sum(), feat)[0].isfinite().all()


def test_halves_are_measured_in_single_precision():
    groups, total = groups_of(40)
    feat = 300 * torch.randn(total, 64)  # squares do not fit float16
    scale = inverse_std(feat.half(), *at(groups))
    assert scale.dtype == torch.float32
    torch.testing.assert_close(scale, inverse_std(feat, *at(groups)), rtol=1e-3, atol=0)


def test_bfloat16_under_autocast_is_compiled():
    """Sums are float32 there, and only what is returned for each neighbor is rounded."""
    groups, total = groups_of(40, 17)
    feat, index = torch.randn(total, 4), (groups.neighbors, groups.anchor)
    u, t = torch.randn(total, 6).bfloat16().requires_grad_(), torch.randn(len(groups.anchor), 6).bfloat16()
    scale = inverse_std(feat, *at(groups))
    expected = group_rows(u.detach().float(), t.float(), scale, *index)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(inverse_std(feat, *at(groups)), scale)
        rows = group_rows(u, t, scale, *index)
    torch.testing.assert_close(rows, expected.bfloat16())
    du = torch.autograd.grad(rows.float().sum(), u)[0]
    assert du.dtype == torch.bfloat16 and du.abs().sum() > 0


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("index", [9, -1])
def test_points_that_do_not_exist(which, index):
    groups, total = groups_of(9)
    feat, given = torch.randn(total, 4, requires_grad=True), [groups.neighbors.clone(), groups.anchor.clone()]
    given[which][-1] = index
    with pytest.raises(IndexError, match="from 0 to 8, got"):
        difference_sums(feat, *given)
    with pytest.raises(IndexError, match="from 0 to 8, got"):
        group_rows(feat, torch.randn(4, 4), torch.ones(4), *given)


def test_as_many_anchors_as_groups():
    groups, total = groups_of(9)
    feat = torch.randn(total, 4, requires_grad=True)
    with pytest.raises((RuntimeError, TypeError)):  # or a checked annotation says so
        difference_sums(feat, groups.neighbors, groups.anchor[:-1])
