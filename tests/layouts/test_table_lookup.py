"""Position tables: which cells a slot reads, and with which weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointmix.layouts.table_lookup import TableLookup

F64 = dict(dtype=torch.float64)
SIZES = [(7, 7), (14, 14), (8, 8), (5, 20), (20, 5), (3, 4), (2, 2), (1, 1), (1, 9), (9, 1), (50, 76)]


def cells(size: tuple[int, int]) -> torch.Tensor:
    """All cells of a lattice, (H W, 2)."""
    return torch.cartesian_prod(*(torch.arange(side) for side in size))


def resized(table: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A table (E, M, T, T) on a lattice, (M, E, H W)."""
    return F.interpolate(table, size, mode="bilinear", align_corners=True).flatten(2).transpose(0, 1)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("side", [1, 2, 7, 14])
def test_a_table_is_interpolated_between_its_corners(side, size):
    table = torch.randn(2, 3, side, side, **F64, requires_grad=True)
    expected = resized(table, size)
    probe = torch.randn_like(expected)
    gradient = torch.autograd.grad(expected, table, probe)[0]
    for known in (size, torch.tensor([[size]])):
        lookup = TableLookup.of(cells(size)[None], known, side, torch.float64)
        found = lookup.read(table)
        assert found.shape == (1, 3, 2, size[0] * size[1])  # (R, M, E, L)
        torch.testing.assert_close(found[0], expected)
        torch.testing.assert_close(torch.autograd.grad(found[0], table, probe)[0], gradient)


def test_a_lattice_of_the_tables_size_reads_it_exactly():
    table = torch.randn(2, 3, 7, 7)
    for size in ((7, 7), torch.tensor([[[7, 7]]])):
        lookup = TableLookup.of(cells((7, 7))[None], size, 7, torch.float32)
        assert lookup.weight is None and lookup.index.shape == (1, 49, 1)
        assert torch.equal(lookup.read(table)[0], table.flatten(2).transpose(0, 1))


def test_every_row_has_a_lattice_of_its_own():
    sizes = [(7, 7), (3, 11), (1, 1)]
    cell = torch.stack([torch.stack([torch.arange(4) % h, torch.arange(4) % w], 1) for h, w in sizes])  # (R, L, 2)
    table = torch.randn(2, 3, 7, 7, **F64)
    found = TableLookup.of(cell, torch.tensor(sizes)[:, None], 7, torch.float64).read(table)
    for row, at, size in zip(found, cell, sizes, strict=True):
        torch.testing.assert_close(row, resized(table, size)[:, :, at[:, 0] * size[1] + at[:, 1]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_read_has_the_dtype_of_the_table(dtype):
    lookup = TableLookup.of(cells((5, 5))[None], (5, 5), 7, torch.float64)
    assert lookup.read(torch.zeros(2, 3, 7, 7, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("windows", [(1, 1), (2, 3)])
def test_windows_of_a_grid_of_the_tables_size_read_it_by_index_or_not(windows):
    r, c = torch.arange(6).view(windows[0], -1), torch.arange(6).view(windows[1], -1)
    cell = torch.stack(torch.broadcast_tensors(r[:, None, :, None], c[None, :, None]), -1).flatten(2, 3).flatten(0, 1)
    table = torch.randn(2, 3, 6, 6, **F64, requires_grad=True)
    by_index, by_window = (TableLookup.of(cell, (6, 6), 6, torch.float64, given) for given in (None, windows))
    expected, found = by_index.read(table), by_window.read(table)
    assert by_window.windows == windows and torch.equal(found, expected) and found.is_contiguous()
    probe = torch.randn_like(found)
    assert torch.equal(*(torch.autograd.grad(t, table, probe)[0] for t in (found, expected)))
    assert TableLookup.of(cell, (6, 6), 7, torch.float64, windows).windows is None  # interpolated
