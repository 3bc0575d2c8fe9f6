from __future__ import annotations

import math

import pytest
import torch

from pointmix.nn.curvature import Curvature
from pointmix.ops.lorentz import distance

INITIALS = (0.1, 1.0, 10.0)


@pytest.mark.parametrize("initial", INITIALS)
def test_fixed(initial):
    curvature = Curvature(initial)
    assert curvature() == initial
    assert not curvature.state_dict() and not list(curvature.parameters())
    assert repr(curvature) == f"Curvature({initial}, learned=False)"


@pytest.mark.parametrize("initial", INITIALS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_learned(initial, dtype):
    curvature = Curvature(initial, learned=True).to(dtype)
    assert list(curvature.state_dict()) == ["log_kappa"]
    kappa = curvature()
    assert kappa.shape == () and kappa.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert kappa.item() == pytest.approx(initial, rel=1e-2 if dtype == torch.bfloat16 else 1e-6)
    kappa.backward()
    assert curvature.log_kappa.grad.item() == pytest.approx(kappa.item(), rel=1e-2)  # d exp(a) / da = exp(a)
    again = Curvature(3.0, learned=True).to(dtype)
    again.load_state_dict(curvature.state_dict())
    assert torch.equal(again.log_kappa, curvature.log_kappa)


@pytest.mark.parametrize("initial", INITIALS)
@pytest.mark.parametrize("outside", [0.0, 0.7, 50.0])
@pytest.mark.parametrize("side", [-1, 1])
def test_bounds(initial, outside, side):
    curvature = Curvature(initial, learned=True)
    edge = math.log(initial) + side * math.log(10)
    with torch.no_grad():
        curvature.log_kappa.fill_(edge + side * outside)
    kappa = curvature()
    assert kappa.item() == pytest.approx(math.exp(edge), rel=1e-6)
    (-side * kappa).backward()  # descent would go further out
    # float32 may round the edge itself inwards, and there the gradient has not met the bound yet
    assert curvature.log_kappa.grad == 0 or outside == 0 and abs(curvature.log_kappa.item()) < abs(edge)
    curvature.log_kappa.grad = None
    (side * curvature()).backward()  # inwards
    assert curvature.log_kappa.grad.item() == pytest.approx(side * math.exp(edge), rel=1e-6)


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_training_comes_to_the_bound_and_back(side, optimizer):
    curvature = Curvature(1.0, learned=True)
    step = optimizer(curvature.parameters(), lr=0.05)
    for direction in (side, -side):
        for _ in range(400):
            step.zero_grad()
            (-direction * curvature().log()).backward()
            step.step()
        assert curvature().item() == pytest.approx(10.0**direction, rel=1e-5)
        assert abs(curvature.log_kappa.item()) < math.log(10) + 1  # not far outside either


def test_compiles_without_a_break():
    x, y = torch.randn(2, 5, 3)
    torch._dynamo.reset()
    for curvature in (Curvature(0.5), Curvature(0.5, learned=True)):

        def loss(x, y, curvature=curvature):
            return distance(x, y, curvature()).sum()

        compiled = torch.compile(loss, fullgraph=True, backend="eager")(x, y)
        torch.testing.assert_close(compiled, loss(x, y), rtol=0, atol=0)
        if curvature.log_kappa is not None:
            compiled.backward()
            assert curvature.log_kappa.grad != 0


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("initial", [0, -1.0, math.nan, math.inf, -math.inf])
def test_initial_must_be_positive(initial, learned):
    with pytest.raises(ValueError, match=f"initial must be above 0, got {initial}"):
        Curvature(initial, learned=learned)
