"""What numba compiles, as operators of torch."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import pointmix.ops.cells.numba
import pointmix.ops.context
import pointmix.ops.lifted_loss.numba
import pointmix.ops.neighbors.numba
import pointmix.ops.sampling.numba  # noqa: F401, these register the operators
from pointmix.ops.kernels.blas import sgemm_address
from pointmix.ops.kernels.brgemm import brgemm_addresses

POS, PTR, OUT_PTR = torch.randn(9, 3), torch.tensor([0, 4, 9]), torch.tensor([0, 2, 5])
CELL, SIZE = torch.tensor([[0, 0], [1, 3], [2, 2], [3, 1], [0, 2], [3, 3]]), torch.tensor([[4, 4], [4, 4]])
CELL_PTR, NEW = torch.tensor([0, 4, 6]), torch.tensor([[0, 0], [1, 1], [0, 1]])
NEW_PTR, COUNT, PARENT = torch.tensor([0, 2, 3]), torch.tensor([1, 1, 1]), torch.tensor([0, -1, 1, -1, 2, -1])
MEMBERS = torch.tensor([[1, 0], [1, 1], [0, 1], [1, 1], [1, 0], [0, 1], [1, 0], [1, 1], [0, 1]]).bool()
WEIGHTS = [torch.randn(shape) for shape in ((12, 3), (12,), (5, 6), (5,), (1,), (1,))]
MLP = [torch.randn(shape) for shape in ((8, 3), (8,), (5, 8), (5,))]
CASES = {
    "numba_knn": (POS, PTR, POS, PTR, 3),
    "numba_farthest_points": (POS, PTR, OUT_PTR, torch.tensor([1, 0])),
    "numba_coarse_cells": (CELL, CELL_PTR, SIZE, 2, 0),
    "numba_adopted": (CELL, CELL_PTR, SIZE, 2, NEW, NEW_PTR, COUNT, PARENT),
    "numba_kernel_cells": (CELL, CELL_PTR, SIZE, NEW, NEW_PTR, 2, 3, 1),
    "numba_kernel_slots": (CELL, NEW, torch.tensor([0, 0, 1, 1, 2, 2]), 2),
    "numba_window_order": (CELL, CELL_PTR, SIZE, 2, 2),
    "numba_window_rows": (torch.tensor([4, 5]), MEMBERS, True, torch.empty(0)),
    "lifted_loss": (POS[None], CELL[:4], torch.rand(4, 2), torch.tensor([[0, 2, -1, 1]]), torch.ones(3), -1),
    "context_cluster": (POS, PTR, MEMBERS, torch.ones(2, 2).bool(), *WEIGHTS, 2, False, False, True),
}
OUT, *KEPT = torch.ops.pointmix.context_cluster(*CASES["context_cluster"])
CASES["context_cluster_backward"] = (OUT, *CASES["context_cluster"][:7], torch.ones(1), *KEPT, 2, False, False)
CASES["mlp_pieces"] = (POS, *MLP, torch.randn(9, 5), torch.float32, True)
CASES["mlp_pieces_backward"] = (POS, *MLP[:3], torch.randn(9, 5), torch.randn(9, 8))
if sgemm_address():
    import pointmix.ops.mlp.float32  # noqa: F401

    CASES["mlp_float32"] = (POS, *MLP, torch.randn(9, 5))
    CASES["mlp_float32_backward"] = (POS, *MLP[:3], torch.randn(9, 5))

    import pointmix.ops.conv3x3.numba  # noqa: F401
    from pointmix.ops.conv3x3 import grid_tiles

    TILES = grid_tiles((2, 3, 4), torch.device("cpu"))
    CASES["conv3x3"] = (torch.randn(24, 5), TILES, torch.randn(6, 5, 3, 3), torch.randn(6))
    CASES["conv3x3_weight_gradient"] = (torch.randn(24, 5), TILES, torch.randn(24, 6))
if all(brgemm_addresses()):
    import pointmix.ops.mlp.bfloat16  # noqa: F401

    EVEN = [torch.randn(shape).bfloat16() for shape in ((9, 4), (8, 4), (8,), (6, 8), (6,))]
    CASES["mlp_bfloat16"] = (*EVEN, torch.randn(9, 6))
    CASES["mlp_bfloat16_backward"] = (*EVEN[:4], torch.randn(9, 6))


@pytest.mark.parametrize("name", CASES)
def test_opcheck(name):
    torch.library.opcheck(getattr(torch.ops.pointmix, name).default, CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_fake_tensors_have_the_shapes_and_dtypes_of_the_results(name):
    op = getattr(torch.ops.pointmix, name)
    mode = FakeTensorMode(shape_env=ShapeEnv())
    given = [mode.from_tensor(t) if isinstance(t, torch.Tensor) else t for t in CASES[name]]
    with mode:
        fakes = op(*given)
    results = op(*CASES[name])
    for fake, real in zip(*((x,) if isinstance(x, torch.Tensor) else x for x in (fakes, results)), strict=True):
        assert fake.dtype == real.dtype and fake.ndim == real.ndim
        assert all(f == r for f, r in zip(fake.shape, real.shape, strict=True) if isinstance(f, int))


def test_vmap_calls_once_for_each_slice():
    shifts = torch.randn(3, 9, 3)
    found = torch.vmap(lambda x: torch.ops.pointmix.numba_knn(x, PTR, x, PTR, 2))(shifts)
    assert torch.equal(found, torch.stack([torch.ops.pointmix.numba_knn(x, PTR, x, PTR, 2) for x in shifts]))
    orders = torch.vmap(lambda cell: torch.ops.pointmix.numba_window_order(cell, CELL_PTR, SIZE, 1, 1)[0])
    assert orders(torch.stack([CELL, CELL])).shape == (2, 6)


def test_compiles_in_one_graph():
    def op(x):
        return torch.ops.pointmix.context_cluster(x, *CASES["context_cluster"][1:])[0] * 2

    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(POS), op(POS))
    torch.compiler.reset()


def test_backpropagation_raises():
    x = POS.clone().requires_grad_()
    dx, *_ = torch.ops.pointmix.context_cluster_backward(OUT, x, *CASES["context_cluster_backward"][2:])
    with pytest.raises(NotImplementedError, match="^pointmix::context_cluster_backward has no derivatives"):
        dx.sum().backward()
