"""What the operators of packed windows refuse: their kernels would read other memory."""

from __future__ import annotations

import pytest
import torch

from tests.ops.context.test_packed import case, fast

NAMES = ("x", "wqv", "bqv", "wp", "bp", "alpha", "beta", "ptr", "members", "center_valid")


@pytest.mark.parametrize("name", NAMES[1:])
@pytest.mark.parametrize("fault", ["shape", "dtype"])
def test_tensors_that_do_not_fit(name, fault):
    tensors, windows, heads = case([4, 6], dtype=torch.float32)
    given = dict(zip(NAMES, [*tensors, *windows], strict=True))
    if fault == "shape":
        given[name] = torch.cat([given[name]] * 2, 1 if name == "center_valid" else 0)
        name = {"wp": "bp", "center_valid": "members"}.get(name, name)  # found by the size of another
    else:
        given[name] = given[name].detach().to(torch.float64 if name in NAMES[:7] else torch.int32)
    order = *NAMES[:1], *NAMES[7:], *NAMES[1:7]
    with pytest.raises(ValueError, match=f"^{name} must be "):
        torch.ops.pointmix.context_cluster(*(given[n] for n in order), heads, False, False, False)


@pytest.mark.parametrize("name", ["dout", "weight", "center", "queries"])
def test_what_was_kept_does_not_fit(name):
    """Such as by hooks of saved tensors that return another dtype."""
    tensors, windows, heads = case([4, 6], dtype=torch.float32)
    x, wqv, bqv, wp, bp, alpha, beta = (t.detach() for t in tensors)
    given = x, *windows, wqv, bqv, wp
    out, *kept = torch.ops.pointmix.context_cluster(*given, bp, alpha, beta, heads, False, False, True)
    made = dict(zip(("dout", "weight", "center", "queries"), (out, *kept), strict=True))
    for other in (made[name].bfloat16(), made[name][:5]):
        dout, *kept = (made | {name: other}).values()
        with pytest.raises(ValueError, match=f"^{name} must be "):
            torch.ops.pointmix.context_cluster_backward(dout, *given, alpha, *kept, heads, False, False)


@pytest.mark.parametrize("ptr", [[0, 4, 9], [0, 4, 11], [1, 4, 10], [0, 12, 10]])
def test_windows_of_other_points(ptr):
    tensors, (_, *windows), heads = case([4, 6])
    with pytest.raises(ValueError, match=r"^ptr must ascend from 0 to 10, the number of points, got \["):
        fast(tensors, (torch.tensor(ptr), *windows), heads)


def test_heads_that_do_not_divide_the_channels():
    tensors, windows, _ = case([4, 6])
    with pytest.raises(ValueError, match="^10 channels of queries do not divide into 3 heads$"):
        torch.ops.pointmix.context_cluster(tensors[0], *windows, *tensors[1:], 3, False, False, False)
