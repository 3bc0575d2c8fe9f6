from __future__ import annotations

import numpy as np
import pytest
import torch

from pointmix.ops.fast import dense, scipy
from pointmix.ops.fast.dense import nearest
from pointmix.ops.neighbors import knn_plain


def plain(x: torch.Tensor, queries: torch.Tensor, k: int) -> np.ndarray:
    return knn_plain(x, torch.tensor([0, len(x)]), queries, torch.tensor([0, len(queries)]), k).numpy()


def cloud(kind: str, dims: int = 3, number: int = 600) -> torch.Tensor:
    x = torch.rand(number, dims, generator=torch.Generator().manual_seed(dims))
    if kind == "lattice":  # most distances are those of other points too
        x = (x * 9).round()
    elif kind == "far away":
        x = x + 1000
    elif kind == "large":
        x = x * 1e17
    elif kind == "small":
        x = x * 1e-12
    elif kind == "sphere":  # the middle is about as far from all
        x = torch.nn.functional.normalize(x - 0.5)
    return x


@pytest.mark.parametrize("dims", [1, 2, 3, 6])
@pytest.mark.parametrize("kind", ["random", "lattice", "far away", "large", "small", "sphere"])
def test_the_plain_form_is_met_exactly(kind: str, dims: int) -> None:
    x = cloud(kind, dims)
    for queries in (x, x[::3] + x.std() / 100, x[:200] * 3):
        for k in (1, 24):
            found = nearest(x, queries, k)
            assert found is None or np.array_equal(found, plain(x, queries, k))
            assert found is not None or (kind, dims) != ("random", 3)


def test_precision_is_not_that_of_autocast() -> None:
    x = cloud("random")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(nearest(x, x, 24), plain(x, x, 24))


def test_pieces_and_groups_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    x = cloud("random", number=333)
    for piece, group in ((1, 8), (1000, 3), (2**20, 1), (2**14, 64)):
        monkeypatch.setattr(dense, "PIECE", piece)
        monkeypatch.setattr(dense, "GROUP", group)
        assert np.array_equal(nearest(x, x, 10), plain(x, x, 10))


@pytest.mark.parametrize(
    "x, k",
    [
        (torch.zeros(600, 3), 4),  # all equally near
        (cloud("random").double(), 4),
        (cloud("random"), 300),
        (cloud("random", number=dense.MOST + 1), 4),
        (cloud("random", number=100), 4),
        (cloud("random") * 1e30, 4),  # squares that overflow
        (torch.cat([cloud("random"), torch.full((1, 3), 1e6)]), 4),  # the product cannot tell the others apart
    ],
)
def test_what_is_left_to_the_tree(x: torch.Tensor, k: int) -> None:
    assert nearest(x, x, k) is None


def test_batches_of_sets_of_either_kind() -> None:
    sets = [cloud("random", number=500), torch.zeros(400, 3), cloud("random", number=20), cloud("lattice")]
    sizes = [len(s) for s in sets]
    ptr = torch.tensor([0, *np.cumsum(sizes)])
    asked = torch.cat([s[: n // 2] for s, n in zip(sets, sizes, strict=True)])
    query_ptr = torch.tensor([0, *np.cumsum([n // 2 for n in sizes])])
    found = scipy.knn(torch.cat(sets), ptr, asked, query_ptr, 8)
    assert torch.equal(found, knn_plain(torch.cat(sets), ptr, asked, query_ptr, 8))
