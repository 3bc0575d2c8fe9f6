from __future__ import annotations

import sys

import pytest
import torch

from pointmix.ops import dispatch, use_backend
from pointmix.ops.dispatch import choose
from pointmix.ops.kernels import blas
from pointmix.ops.largest import largest, largest_reference

module = pytest.importorskip(
    "pointmix.ops.largest.numba", reason="torch's library does not export sgemm of MKL", exc_type=ImportError
)

SHAPES = {
    "several tiles of points and of centers": (2, 700, 137, 5),
    "one of everything": (1, 1, 1, 1),
    "more centers than points": (3, 4, 90, 3),
}


def case(shape: tuple[int, int, int, int], dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """Small integers, whose products are exact, so that many are equal."""
    sets, points, centers, channels = shape
    sizes = (sets, points, channels), (sets, centers, channels), (sets, centers)
    x, key, offset = (torch.randint(-3, 4, size) for size in sizes)
    return x.to(dtype), key.to(dtype), offset.float()


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest, monkeypatch):
    """All work is shared, however small."""
    before = torch.get_num_threads()
    monkeypatch.setattr(module, "MIN_MULTIPLICATIONS", 0)
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SHAPES)
def test_first_of_the_largest(name, dtype, threads):
    x, key, offset = case(SHAPES[name], dtype)
    products = x.double() @ key.double().transpose(1, 2) + offset.double()[:, None]
    assert torch.equal(module.largest(x, key, offset), products.argmax(2))
    assert torch.equal(largest_reference(x.double(), key.double(), offset.double()), products.argmax(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_is_the_largest_and_minus_infinity_the_smallest(dtype):
    x, key, offset = case((2, 40, 6, 3), dtype)
    offset[:, 0] = -torch.inf
    key[0, 3:5], offset[1] = torch.nan, -torch.inf
    found = largest(x, key, offset)
    assert (found[0] == 3).all() and (found[1] == 0).all()
    assert (largest(x[:1], key[:1, :3], offset[:1, :3]) > 0).all()


def test_products_are_in_the_dtype_of_autocast():
    """The second is larger, by less than bfloat16 resolves."""
    x, key, offset = torch.ones(1, 4, 1), torch.tensor([[[1.001], [1.002]]]), torch.zeros(1, 2)
    assert (largest(x, key, offset) == 1).all()
    with torch.autocast("cpu", torch.bfloat16):
        assert (largest(x, key, offset) == 0).all()


def test_every_backend_finds_the_same_centers():
    given = case((2, 90, 11, 4))
    with use_backend("torch"):
        expected = largest(*given)
    assert torch.equal(largest(*given), expected)


def test_a_set_does_not_depend_on_the_others():
    x, key, offset = torch.randn(3, 500, 7), torch.randn(3, 80, 7), torch.randn(3, 80)
    assert torch.equal(largest(x, key, offset)[1:2], largest(x[1:2], key[1:2], offset[1:2]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_equal_centers_the_first(dtype):
    """Products are not exact, so they must be added in one order wherever a center lies in a tile."""
    for points, centers, channels in ((1, 65, 100), (8, 49, 31), (10, 50, 15), (300, 65, 32), (257, 129, 64)):
        x, key, offset = torch.randn(1, points, channels), torch.randn(1, 1, channels), torch.randn(1, 1)
        found = module.largest(x.to(dtype), key.to(dtype).expand(-1, centers, -1), offset.expand(-1, centers))
        assert (found == 0).all()


@pytest.mark.parametrize("op", [module.largest, largest_reference])
def test_sets_without_points(op):
    for sets, points, centers in ((0, 4, 5), (2, 0, 5), (2, 0, 0)):
        found = op(torch.randn(sets, points, 3), torch.randn(sets, centers, 3), torch.randn(sets, centers))
        assert found.shape == (sets, points) and found.dtype == torch.int64


def test_machines_without_mkl(monkeypatch):
    """The reference form takes the place of the compiled one."""
    given = case((2, 90, 11, 4))
    expected = largest(*given)
    monkeypatch.setattr(blas, "sgemm_address", lambda: 0)
    monkeypatch.setattr(dispatch.OPERATIONS["largest"], "functions", {})
    monkeypatch.setattr(dispatch.OPERATIONS["largest"], "faults", {})
    monkeypatch.delitem(sys.modules, module.__name__)
    monkeypatch.delattr(sys.modules["pointmix.ops.largest"], "numba")
    assert choose("largest", given[0]) is None
    assert "does not export sgemm" in dispatch.OPERATIONS["largest"].faults["numba"]
    assert torch.equal(largest(*given), expected)


def test_tensors_that_do_not_fit():
    x, key, offset = case((2, 9, 4, 3))
    for given in (
        (x[:1], key, offset),
        (x, key[..., :2], offset),
        (x, key, offset[:, :3]),
        (x.bfloat16(), key, offset),
        (x.double(), key.double(), offset),
        (x.half(), key.half(), offset),
        (x[..., :0], key[..., :0], offset),
    ):
        with pytest.raises(ValueError, match="^x, key and offset must be"):
            module.largest(*given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_is_an_operator(dtype):
    torch.library.opcheck(module.largest, case((2, 9, 4, 3), dtype))
