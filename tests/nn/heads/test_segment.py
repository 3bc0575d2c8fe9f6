"""Semantic FPN against the same network written with convolutions and interpolation of maps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from pointmix import PointSet
from pointmix.nn.heads.segment import PointBatchNorm, SemanticFPN

F64 = dict(dtype=torch.float64)
DIMS = (5, 6, 7, 8)


def literal(head: SemanticFPN, maps: list[torch.Tensor]) -> torch.Tensor:
    """FPN and FPNHead of mmsegmentation, written out; lifts by two, cropped to the finer map."""

    def up(x: torch.Tensor, like: torch.Tensor, mode: str) -> torch.Tensor:
        options = dict(align_corners=False) if mode == "bilinear" else {}
        return F.interpolate(x, scale_factor=2, mode=mode, **options)[..., : like.shape[2], : like.shape[3]]

    laterals = [
        F.conv2d(x, layer.weight[..., None, None], layer.bias) for x, layer in zip(maps, head.fpn.lateral, strict=True)
    ]
    for i in range(len(maps) - 1, 0, -1):
        laterals[i - 1] = laterals[i - 1] + up(laterals[i], laterals[i - 1], "nearest")
    pyramid = [F.conv2d(x, s.weight, s.bias, padding=1) for x, s in zip(laterals, head.fpn.smooth, strict=True)]
    total = 0
    for i, level in enumerate(head.levels):
        x = pyramid[i]
        for j, layer in enumerate(level):
            x = F.conv2d(x, layer.conv.weight, padding=1)
            norm = layer.norm
            x = F.batch_norm(
                x, norm.running_mean, norm.running_var, norm.weight, norm.bias, head.training, eps=norm.eps
            )
            x = x.relu()
            if i > 0:
                x = up(x, maps[i - j - 1], "bilinear")
        total = total + x
    return F.conv2d(total, head.classifier.weight[..., None, None], head.classifier.bias)


def head_of(**kwargs) -> SemanticFPN:
    torch.manual_seed(0)
    head = SemanticFPN(DIMS, 4, neck_dim=12, decoder_dim=6, drop_rate=0.0, **kwargs).double()
    for name, p in head.named_parameters():
        if ".norm." in name or name.endswith("bias"):
            torch.nn.init.normal_(p, mean=1.0)
        if name == "classifier.weight":
            torch.nn.init.normal_(p)
    return head


def stage_maps(size: tuple[int, int], batch: int = 2) -> list[torch.Tensor]:
    sizes = [tuple(-(-side // 2**i) for side in size) for i in range(len(DIMS))]
    return [torch.randn(batch, dim, *side, **F64, requires_grad=True) for dim, side in zip(DIMS, sizes, strict=True)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(16, 24), (13, 9), (2, 1)], ids=str)
def test_a_full_grid_is_the_literal_network(size, training):
    head, maps = head_of().train(training), stage_maps(size)
    expected = literal(head, maps)
    probe = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * probe).sum(), [*maps, *head.parameters()])
    for sparse in (False, True):
        points = [PointSet.from_batch(x) for x in maps]
        found = head([p.as_sparse() for p in points] if sparse else points)
        logits = found.to_image()
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
        gradients = torch.autograd.grad((logits * probe).sum(), [*maps, *head.parameters()])
        for gradient, other in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("widths, count", [((64, 128, 320, 512), 4_266_646)])
def test_parameters_are_those_of_the_papers(widths, count):
    assert sum(p.numel() for p in SemanticFPN(widths, 150).parameters()) == count


@pytest.mark.parametrize("points", [2, 50])
def test_gradients_of_batch_normalization(points):
    layer, x = PointBatchNorm(3).double(), torch.randn(points, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, w, b: functional_call(layer, dict(weight=w, bias=b), x),
        (x, *(torch.rand(3, dtype=torch.float64, requires_grad=True) for _ in range(2))),
    )


def test_running_statistics_are_those_of_batch_norm():
    ours, theirs = PointBatchNorm(3).double(), torch.nn.BatchNorm1d(3).double()
    for _ in range(3):
        x = torch.randn(20, 3, **F64) * 2 + 1
        torch.testing.assert_close(ours(x), theirs(x))
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    before = ours.running_mean.clone()
    one = torch.ones(1, 3, **F64)
    expected = theirs.eval()(one)
    torch.testing.assert_close(ours(one), expected)  # one point has no variance
    assert torch.equal(ours.running_mean, before)


def cloud_stages(sizes: tuple[int, ...]) -> list[PointSet]:
    """Two sets, of which each stage keeps half of the points."""
    pos = [torch.rand(n, 3, **F64) for n in sizes]
    stages = []
    for i, dim in enumerate(DIMS):
        kept = [p[: max(len(p) // 2**i, 1)] for p in pos]
        ptr = torch.tensor([0, *(len(k) for k in kept)]).cumsum(0)
        stages.append(PointSet(torch.cat(kept), torch.randn(int(ptr[-1]), dim, **F64), ptr))
    return stages


def test_categories_and_context_reach_every_point_of_their_set_only():
    head, stages = head_of(categories=3, global_context=True).eval(), cloud_stages((40, 24))
    first = head(stages, torch.tensor([0, 1])).feat
    assert first.shape == (64, 4)
    other = head(stages, torch.tensor([0, 2])).feat
    torch.testing.assert_close(first[:40], other[:40])
    assert (first[40:] != other[40:]).any(1).all()
    coarsest = stages[-1].feat.clone()
    coarsest[-1] += 10  # far away for most points of the second set
    moved = head([*stages[:-1], stages[-1].with_feat(coarsest)], torch.tensor([0, 1])).feat
    torch.testing.assert_close(first[:40], moved[:40])
    assert (first[40:] != moved[40:]).any(1).all()


@pytest.mark.parametrize(
    "categories, given, message",
    [
        (3, None, "has 3 categories, and none were given"),
        (0, torch.tensor([0, 1]), "has 0 categories, and some were given"),
        (3, torch.tensor([0]), r"an integer for each of 2 sets, got \(1,\)"),
        (3, torch.tensor([0.0, 1.0]), "an integer for each of 2 sets"),
        (3, torch.tensor([True, False]), "an integer for each of 2 sets"),
        (3, torch.tensor([0, 3]), r"from 0 to 2, got \[0, 3\]"),
        (3, torch.tensor([-1, 0]), "from 0 to 2"),
    ],
)
def test_wrong_categories_are_refused(categories, given, message):
    head = head_of(categories=categories).eval()
    with pytest.raises(ValueError, match=message):
        head(cloud_stages((16, 16)), given)


@pytest.mark.parametrize("name, value", [("num_classes", 0), ("neck_dim", 0), ("decoder_dim", -1), ("drop_rate", 1.0)])
def test_settings_have_ranges(name, value):
    settings = dict(num_classes=3, neck_dim=8, decoder_dim=8) | {name: value}
    with pytest.raises(ValueError, match=f"{name} must be"):
        SemanticFPN(DIMS, **settings)
