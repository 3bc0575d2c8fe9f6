from __future__ import annotations

import pytest
import torch

from pointmix.ops.ragged import (
    batch_to_ptr,
    check_positions,
    check_ptr,
    counts_to_ptr,
    ptr_to_batch,
    set_bounds,
    squared_distance,
    to_dense_batch,
)

POS = torch.randn(5, 3)
PTR = torch.tensor([0, 2, 5])


def with_value(value: float) -> torch.Tensor:
    pos = POS.clone()
    pos[3, 1] = value
    return pos


@pytest.mark.parametrize(
    "pos, ptr, message",
    [
        (POS[0], PTR, r"positions must be \(N, D\) floating point, got \(3,\)"),
        (POS.long(), PTR, "floating point, got .* torch.int64"),
        (torch.zeros(5, 0), PTR, "positions must be"),
        (POS, PTR.int(), "ptr must be .* int64 .* torch.int32"),
        (POS, PTR[:1], "ptr must be"),
        (POS, PTR[:, None], "ptr must be"),
        (POS, torch.tensor([0, 2, 6]), r"rise from 0 to 5 .* got \[0, 2, 6\]"),
        (POS, torch.tensor([1, 2, 5]), "rise from 0"),
        (POS, torch.tensor([0, 3, 2, 5]), "rise from 0"),
        (POS, torch.tensor([0, 2, 2, 5]), "with a point in every set"),
        (POS[:0], torch.tensor([0, 0]), "with a point in every set"),
        (with_value(float("nan")), PTR, "1 of 5 points are not, the first is point 3"),
        (with_value(float("inf")), PTR, "must be finite"),
        (with_value(-1e19), PTR, "must be finite and below"),
        (POS.double() * 1e200, PTR, "must be finite and below"),
    ],
)
def test_what_does_not_fit_is_named(pos, ptr, message):
    with pytest.raises(ValueError, match=f"^op: .*{message}") as error:
        check_positions("op", pos, ptr)
    assert "\n" not in str(error.value)


def test_empty_sets_are_allowed_where_asked_for():
    assert len(check_positions("op", POS[:0], torch.tensor([0, 0]), empty=True)[0]) == 0
    check_positions("op", POS, torch.tensor([0, 0, 5, 5]), empty=True)
    with pytest.raises(ValueError, match="rise from 0 to 5, got"):
        check_positions("op", POS, torch.tensor([0, 3, 2, 5]), empty=True)


@pytest.mark.parametrize(
    "dtype, computed",
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float32,) * 2, (torch.float64,) * 2],
)
def test_precision(dtype, computed):
    pos = POS.to(dtype).requires_grad_()
    out, _ = check_positions("op", pos, PTR)
    assert out.dtype == computed and not out.requires_grad and torch.equal(out, pos.to(computed))


def test_ptr_may_be_a_list():
    pos, ptr = check_positions("op", POS, [0, 2, 5])
    assert torch.equal(ptr, PTR) and ptr.dtype == torch.int64
    assert torch.equal(check_ptr("op", (0, 2, 5), 5, POS.device), PTR)
    for wrong in ([0, 2.5, 5], "025", None, [0, PTR[1], 5]):
        with pytest.raises(ValueError, match="^op: ptr must be a tensor or a list of integers, got "):
            check_positions("op", POS, wrong)


@pytest.mark.parametrize("batch", [[0, 0, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 2, 3, 4]])
def test_a_batch_vector_is_refused_with_the_remedy(batch):
    batch = torch.tensor(batch)
    with pytest.raises(
        ValueError, match=r"^op: ptr must rise from 0 to 5 .*pass pointmix\.ops\.batch_to_ptr\(batch\)$"
    ):
        check_positions("op", POS, batch)
    check_positions("op", POS, batch_to_ptr(batch))


def test_batch_to_ptr():
    assert batch_to_ptr(torch.tensor([0, 0, 2])).tolist() == [0, 2, 2, 3]
    assert batch_to_ptr(torch.tensor([0, 0, 2]), 5).tolist() == [0, 2, 2, 3, 3, 3]
    assert batch_to_ptr(torch.tensor([], dtype=torch.int64), 2).tolist() == [0, 0, 0]
    for batch, options, message in (
        (torch.tensor([0, 1, 0]), {}, "must rise from 0"),
        (torch.tensor([-1, 0]), {}, "must rise from 0"),
        (torch.tensor([0.0]), {}, r"must be \(N,\) of integers, got \(1,\) torch.float32"),
        (torch.tensor([0, 3]), {"num_sets": 3}, "holds set 3, but there are only 3 sets"),
    ):
        with pytest.raises(ValueError, match=f"^batch .*{message}"):
            batch_to_ptr(batch, **options)


def test_conversions():
    ptr = counts_to_ptr(torch.tensor([2, 0, 3]))
    assert ptr.tolist() == [0, 2, 2, 5]
    assert ptr_to_batch(ptr, 5).tolist() == [0, 0, 2, 2, 2]
    assert set_bounds(ptr) == [(0, 2), (2, 2), (2, 5)]
    assert set_bounds(ptr, torch.tensor([0, 1, 2, 3])) == [(0, 2, 0, 1), (2, 2, 1, 2), (2, 5, 2, 3)]


def test_to_dense_batch():
    x, real = to_dense_batch(POS, PTR)
    assert real.tolist() == [[True, True, False], [True, True, True]]
    assert torch.equal(x[real], POS) and (x[~real] == 0).all()


def test_squared_distance():
    x, y = torch.randn(4, 6, 1, dtype=torch.float64), torch.randn(4, 1, 5, dtype=torch.float64)
    torch.testing.assert_close(squared_distance(x, y), (x - y).square().sum(0))
    assert torch.equal(squared_distance(x, y), squared_distance(y, x))
