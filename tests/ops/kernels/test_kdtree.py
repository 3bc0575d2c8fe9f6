from __future__ import annotations

import numpy as np
import pytest
import torch

from pointmix.ops.kernels import kdtree
from pointmix.ops.neighbors import knn_reference
from pointmix.ops.sampling import farthest_points_reference
from pointmix.ops.sampling.numba import farthest_points


def shapes() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    ball = torch.randn(500, 3, generator=generator)
    side = torch.arange(24.0)
    limit = (torch.finfo(torch.float32).max / 20) ** 0.5 / 2
    return {
        "ball": ball,
        "sphere": ball / ball.norm(dim=1, keepdim=True),
        "plane": ball[:, :2].contiguous(),
        "line": ball[:, :1].contiguous(),
        "six dimensions": torch.randn(300, 6, generator=generator),
        "lattice": torch.cartesian_prod(side, side),
        "lattice in disorder": torch.cartesian_prod(side, side)[torch.randperm(576, generator=generator)],
        "cube": torch.cartesian_prod(*[side[:8]] * 3),
        "three of each": ball[:150].repeat(3, 1)[torch.randperm(450, generator=generator)],
        "dense and sparse": torch.cat([ball[:400] * 1e-3, ball[400:] + 4]),
        "crowd far away": torch.cat([torch.full((200, 3), 9.0), ball[:300]]),
        "equal": torch.ones(300, 3),
        "far from the origin": ball + 1000,
        "small": ball * 1e-12,
        "large": ball * 1e17,
        "squares beyond all numbers": torch.randn(60, 1, generator=generator).sign().repeat(1, 20) * limit * 1.1,
        "a leaf": ball[: kdtree.LEAF],
        "a leaf and a point": ball[: kdtree.LEAF + 1],
        "one point": ball[:1],
    }


SHAPES = shapes()
DTYPES = (torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_boxes_hold_their_points_and_leaves_all_of_them(name, dtype):
    x = SHAPES[name].to(dtype).numpy()
    blocks, index, boxes = kdtree.build(x)
    leaves, held = len(blocks), []
    for leaf, members in enumerate(index):
        real = members != kdtree.NONE
        here = x[members[real]]
        assert (np.diff(members[real]) > 0).all() and np.array_equal(blocks[leaf][:, real].T, here)
        assert np.isinf(blocks[leaf][:, ~real]).all() and real.any()
        node = leaf + leaves
        assert np.array_equal(boxes[node], [here.min(0), here.max(0)])
        while node := node // 2:
            assert (boxes[node, 0] <= here).all() and (here <= boxes[node, 1]).all()
        held += members[real].tolist()
    assert sorted(held) == list(range(len(x)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_same_farthest_points_in_the_same_order(name, dtype):
    x = SHAPES[name].to(dtype)
    ptr = torch.tensor([0, len(x)])
    for number, start in ((len(x), 0), (-(-len(x) // 3), min(17, len(x) - 1))):
        args = x, ptr, torch.tensor([0, number]), torch.tensor([start])
        assert farthest_points(*args).tolist() == farthest_points_reference(*args).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_same_neighbors_in_the_same_order(name, dtype):
    x = SHAPES[name].to(dtype)
    ptr = torch.tensor([0, len(x)])
    built = kdtree.build(x.numpy())
    for queries in (x, x[::3] + x.std(correction=0) / 100, x[:200] * 3):
        for k in (1, 24, len(x) + 3):
            expected = knn_reference(x, ptr, queries, torch.tensor([0, len(queries)]), k)[:, : len(x)]
            found = np.full((len(queries), k), -1)
            kdtree.nearest(x.numpy(), built, queries.numpy(), np.arange(len(queries))[::-1].copy(), k, found)
            assert np.array_equal(found[:, : len(x)], expected)
            assert (found[:, len(x) :] == -1).all()


def test_queries_that_are_not_named_are_left_alone():
    x = SHAPES["ball"].numpy()
    found = np.full((500, 2), -1)
    kdtree.nearest(x, kdtree.build(x), x, np.array([7, 3]), 2, found)
    assert (found[[7, 3], 0] == [7, 3]).all() and (found >= 0).sum() == 4
