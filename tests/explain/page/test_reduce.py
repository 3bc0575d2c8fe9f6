"""Clusters of several blocks, reduced by k-means."""

from __future__ import annotations

import numpy as np
import torch

from pointmix import PointSet
from pointmix.explain.page.reduce import reduce_clusters
from pointmix.explain.page.scene import image_scene
from pointmix.nn.stage import Assignment


def block(name, center, feat, centers):
    """A block on an 8 x 8 lattice."""
    points = PointSet.from_batch(feat.T.reshape(1, -1, 8, 8))
    weight = torch.ones(64, 1)
    return Assignment(name, center[:, None], weight, torch.zeros(64).long(), torch.zeros(centers, 2), points)


def test_alike_clusters_of_different_windows_are_joined():
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    checks = (rows // 4 + columns // 4) % 2  # what the features say: two kinds, on four quarters
    feat = torch.where(checks.flatten()[:, None] > 0, 1.0, -1.0) + 0.01 * torch.randn(64, 3)
    quarter = (rows // 4 * 2 + columns // 4).flatten()  # a cluster each
    scene = image_scene(torch.rand(1, 3, 16, 16))
    found = reduce_clusters(scene, [block("stages.0.blocks.0", quarter, feat, 4)], 2)
    assert found.name == "1 block, k-means into 2" and found.label.shape == (64,) and len(found.nearest) == 256
    assert len(set(zip(found.label.tolist(), checks.flatten().tolist(), strict=True))) == 2
    again = reduce_clusters(scene, [block("stages.0.blocks.0", quarter, feat, 4)], 2)
    assert (again.label == found.label).all()
    # four different clusters cannot become eight
    assert reduce_clusters(scene, [block("stages.0.blocks.0", quarter, feat, 4)], 8).name.endswith("into 4")


def test_blocks_count_alike_and_the_largest_cluster_is_the_first():
    big, small = torch.arange(64) % 8 // 3, torch.arange(64) // 8 % 2
    loud, quiet = 100.0 * (big == 0)[:, None] * torch.ones(1, 3), (small * 1.0)[:, None] * torch.ones(1, 3)
    scene = image_scene(torch.rand(1, 3, 8, 8))
    blocks = [block("stages.0.blocks.0", big, loud, 3), block("stages.1.blocks.0", small, quiet, 2)]
    found = reduce_clusters(scene, blocks, 4)
    pairs = set(zip((big == 0).tolist(), small.tolist(), found.label.tolist(), strict=True))
    assert len(pairs) == 4  # the quiet block decides, too
    assert (np.diff(np.bincount(found.label)) <= 0).all()


def test_nothing_is_reduced_where_nothing_is_grouped():
    scene = image_scene(torch.rand(1, 3, 8, 8))
    trivial = block("stages.0.blocks.0", torch.arange(64), torch.rand(64, 3), 64)
    assert reduce_clusters(scene, [trivial], 3) is None and reduce_clusters(scene, [], 3) is None
