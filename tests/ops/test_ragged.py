from __future__ import annotations

import pytest
import torch

from pointmix.ops.ragged import checked, offsets, padded, set_of, spans, squared_distance

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
        checked("op", pos, ptr)
    assert "\n" not in str(error.value)


def test_empty_sets_are_allowed_where_asked_for():
    assert len(checked("op", POS[:0], torch.tensor([0, 0]), empty=True)) == 0
    checked("op", POS, torch.tensor([0, 0, 5, 5]), empty=True)
    with pytest.raises(ValueError, match="rise from 0 to 5, got"):
        checked("op", POS, torch.tensor([0, 3, 2, 5]), empty=True)


@pytest.mark.parametrize(
    "dtype, computed",
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float32,) * 2, (torch.float64,) * 2],
)
def test_precision(dtype, computed):
    pos = POS.to(dtype).requires_grad_()
    out = checked("op", pos, PTR)
    assert out.dtype == computed and not out.requires_grad and torch.equal(out, pos.to(computed))


def test_indices():
    ptr = offsets(torch.tensor([2, 0, 3]))
    assert ptr.tolist() == [0, 2, 2, 5]
    assert set_of(ptr, 5).tolist() == [0, 0, 2, 2, 2]
    assert spans(ptr) == [(0, 2), (2, 2), (2, 5)]
    assert spans(ptr, torch.tensor([0, 1, 2, 3])) == [(0, 2, 0, 1), (2, 2, 1, 2), (2, 5, 2, 3)]


def test_padded():
    x, real = padded(POS, PTR)
    assert real.tolist() == [[True, True, False], [True, True, True]]
    assert torch.equal(x[real], POS) and (x[~real] == 0).all()


def test_squared_distance():
    x, y = torch.randn(4, 6, 1, dtype=torch.float64), torch.randn(4, 1, 5, dtype=torch.float64)
    torch.testing.assert_close(squared_distance(x, y), (x - y).square().sum(0))
    assert torch.equal(squared_distance(x, y), squared_distance(y, x))
