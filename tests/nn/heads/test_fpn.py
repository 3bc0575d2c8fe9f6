"""The FPN against torchvision's."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import FeaturePyramidNetwork

from pointmix import PointSet
from pointmix.nn.heads.fpn import FPN
from pointmix.profile.macs import parameters

DIMS = (5, 6, 7, 8)


@pytest.mark.parametrize("size", [(32, 48), (16, 8)], ids=str)
def test_maps_are_torchvisions(size):
    torch.manual_seed(0)
    ours, theirs = FPN(DIMS, 12).double(), FeaturePyramidNetwork(DIMS, 12).double()
    for i in range(4):
        lateral, smooth = ours.lateral[i], ours.smooth[i]
        torch.nn.init.normal_(lateral.bias), torch.nn.init.normal_(smooth.bias)
        weight = lateral.weight[..., None, None]
        theirs.inner_blocks[i][0].load_state_dict(dict(weight=weight, bias=lateral.bias))
        theirs.layer_blocks[i][0].load_state_dict(smooth.state_dict())
    sizes = [tuple(-(-side // 2**i) for side in size) for i in range(4)]
    maps = [torch.randn(2, dim, *side, dtype=torch.float64) for dim, side in zip(DIMS, sizes, strict=True)]
    expected = theirs({str(i): x for i, x in enumerate(maps)})
    for sparse in (False, True):
        stages = [PointSet.from_batch(x) for x in maps]
        stages = [stage.as_sparse() for stage in stages] if sparse else stages
        rows = ours(stages, ours.neighborhoods(stages))
        for stage, x, y in zip(stages, rows, expected.values(), strict=True):
            torch.testing.assert_close(stage.with_feat(x).to_image(), y)


def test_parameters_are_those_of_the_papers():
    laterals, smooth = sum(256 * (dim + 1) for dim in (64, 128, 320, 512)), 4 * (9 * 256 + 1) * 256
    assert parameters(FPN((64, 128, 320, 512), 256)) == laterals + smooth
