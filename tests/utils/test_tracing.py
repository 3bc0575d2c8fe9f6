from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import pointmix
from pointmix.utils.tracing import traced


def small(name: str) -> torch.nn.Module:
    return pointmix.create_model(name, depths=(1, 1, 1, 1), num_classes=3).eval()


@pytest.mark.parametrize("name", ["coc_tiny", "hcformer_tiny", "fec_small"])
def test_models_run_on_fake_tensors(name):
    model = small(name)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        assert model(torch.randn(2, 3, 32, 32)).shape == (2, 3)


def test_what_is_written_down_runs_anywhere():
    """Nothing of one processor's library is left in a trace, and it gives the model's values."""
    model, x = small("coc_tiny"), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for graph in (torch.jit.trace(model, x, check_trace=False), make_fx(model)(x)):
            assert "mkldnn" not in str(getattr(graph, "inlined_graph", getattr(graph, "code", "")))
            torch.testing.assert_close(graph(x), model(x), rtol=1e-4, atol=1e-5)


class AddsOneIfTraced(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if traced(x) else x


def test_plain_tensors_are_not_traced():
    assert not traced(torch.zeros(1)) and not traced(torch.nn.Parameter(torch.zeros(1)))
    with FakeTensorMode():
        assert traced(torch.zeros(1))
    assert torch.func.vmap(lambda x: torch.tensor(traced(x)))(torch.zeros(2)).all()
    seen = []
    note = lambda x: seen.append(traced(x)) or x.sum()  # noqa: E731
    torch.func.grad(note)(torch.zeros(2))
    torch.func.jvp(note, (torch.zeros(2),), (torch.zeros(2),))
    torch.func.functionalize(note)(torch.zeros(2))
    make_fx(note)(torch.zeros(2))
    assert seen == [True] * 4
    exported = torch.export.export(AddsOneIfTraced(), (torch.zeros(2),)).module()
    assert torch.equal(exported(torch.zeros(2)), torch.ones(2))


def test_float64_in_autocast():
    """Autocast leaves it alone."""
    model = small("coc_tiny").double()
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(model(x), expected)
