"""Segmenters: parameters of the papers, shapes of every kind of input, and what is refused."""

from __future__ import annotations

import pytest
import timm
import torch

import pointmix
from pointmix import PointSet
from pointmix.nn.heads.segment import SemanticFPN

PARAMETERS = {  # with 150 classes: the published figures / 2^20 are 8.8, 10.3, 18.9, 35.7; 9.1, 18.0, 31.9; 17.6
    "hcformer_nano": 9_237_832,
    "hcformer_tiny": 10_793_448,
    "hcformer_small": 19_862_940,
    "hcformer_medium": 37_403_026,
    "fec_small": 9_568_286,
    "fec_base": 18_841_518,
    "fec_large": 33_475_014,
    "coc_tiny": 9_411_342,
    "coc_small": 18_411_694,
    "coc_medium": 33_045_190,
}


def small(name: str = "coc_tiny", num_classes: int = 5, **kwargs) -> torch.nn.Module:
    torch.manual_seed(0)
    network = pointmix.create_segmenter(name, num_classes, neck_dim=8, **(narrow(name) | kwargs))
    return network.eval()


def narrow(name: str) -> dict[str, object]:
    return (
        dict(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), heads=2, head_dim=4)
        if name.startswith(("coc", "fec", "hc"))
        else {}
    )


@pytest.mark.parametrize("name, count", PARAMETERS.items(), ids=str)
def test_parameters_are_those_of_the_papers(name, count):
    with torch.device("meta"):
        network = pointmix.create_segmenter(name, 150)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize("size", [(50, 70), (64, 32), (1, 1), (3, 17)], ids=str)
@pytest.mark.parametrize("name", ["coc_tiny", "resnet18"])
def test_images_get_logits_at_their_size(name, size):
    network, images = small(name), torch.randn(2, 3, *size)
    with torch.no_grad():
        maps = network(images)
        rows = network(PointSet.from_images(images))
    assert maps.shape == (2, 5, *size)
    torch.testing.assert_close(maps.permute(0, 2, 3, 1).reshape(-1, 5), rows)


def test_partial_images_and_clouds_get_a_logit_for_every_point():
    image, mask = torch.randn(3, 40, 30), torch.rand(40, 30) < 0.5
    points = PointSet.from_image(image, mask)
    assert small()(points).shape == (len(points.feat), 5)
    network = small(coord_dims=3, in_chans=0)
    clouds = torch.rand(2, 100, 3)
    rows = network(PointSet.from_batch(clouds))
    assert rows.shape == (200, 5)
    torch.testing.assert_close(network(clouds), rows.view(2, 100, 5))
    pixels = small(layout="cloud")  # pixels as free points
    torch.testing.assert_close(pixels(PointSet.from_image(image[:, :9, :8])).shape, torch.Size([72, 5]))


@pytest.mark.parametrize("name", ["coc_tiny", "resnet18", "pointmlp_elite"])
def test_logits_can_be_lifted_later_and_in_parts(name):
    clouds = name == "pointmlp_elite"
    network = small(name, **(dict(in_chans=3) if clouds else {}))
    points = PointSet.from_images(torch.randn(2, 3, 36, 28))
    points = PointSet.from_points(torch.rand(100, 3), torch.rand(100, 3)) if clouds else points
    with torch.no_grad():
        whole = network(points)
        coarse, lift = network(points, lift=False)
        assert coarse.feat.shape[1] == 5 and len(coarse.feat) < len(points.feat) == lift.num_points
        parts = [(place, part(coarse.feat)) for place, part in lift.split(50)]
    assert [place.start for place, _ in parts[1:]] == [place.stop for place, _ in parts[:-1]]
    torch.testing.assert_close(torch.cat([rows for _, rows in parts]), whole)


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_clouds_far_from_the_origin_are_lifted_where_they_are(weights):
    network = small(coord_dims=3, in_chans=0).to(weights)
    pos = torch.rand(200, 3).mul(256).round().double() / 256  # exact also when they are moved
    pos[0], pos[1] = 0, 1  # corners of the bounding box
    with torch.no_grad():
        near = network(PointSet.from_points(pos - 0.5))
        far = network(PointSet.from_points(pos + torch.tensor([500_000.0, 4_500_000.0, 0.0])))
    torch.testing.assert_close(far, near)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_it_takes_the_precision_of_its_weights(dtype):
    network, images = small().to(dtype), torch.randn(1, 3, 32, 32)
    assert network(images).dtype == dtype


@pytest.mark.parametrize("name", ["coc_tiny", "fec_small", "hcformer_nano", "pointmlp_elite", "resnet18"])
def test_every_parameter_is_trained(name):
    clouds = name == "pointmlp_elite"
    kwargs = dict(depths=(1, 1, 1, 1)) if name.startswith(("coc", "fec", "hcformer")) else {}
    network = pointmix.create_segmenter(name, 5, in_chans=3, **kwargs).train()
    points = PointSet.from_images(torch.randn(2, 3, 64, 64))
    points = PointSet.from_points(torch.rand(300, 3), torch.rand(300, 3)) if clouds else points
    for p in network.parameters():
        if p.ndim == 1:
            p.data.add_(0.1)  # some norms start at a weight of zero
    network(points).square().sum().backward()
    free = {key for key, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    # one window has one center at the third stage of HCFormer, so its similarity has no effect
    single = {f"backbone.stages.2.blocks.0.mixer.{part}_window" for part in ("alpha", "bias")}
    assert free == (single if name.startswith("hcformer") else set())


def test_checkpointing_changes_nothing():
    images, results = torch.randn(2, 3, 32, 32), []
    for enable in (False, True):
        network = small().train()
        network.head.drop.p = 0.0
        network.set_grad_checkpointing(enable)
        loss = network(images).square().sum()
        results.append(torch.autograd.grad(loss, [p for p in network.parameters() if p.requires_grad]))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_a_classifier_for_other_classes():
    network = small()
    network.reset_classifier(9)
    assert network.num_classes == 9 and network(torch.rand(1, 3, 8, 8)).shape == (1, 9, 8, 8)


def test_weights_without_decay_are_those_of_the_backbone():
    network = pointmix.create_segmenter("hcformer_nano", 3, depths=(1, 1, 1, 1), decay_bias_tables=False)
    names = network.no_weight_decay()
    assert names and names <= set(dict(network.named_parameters()))
    assert small("resnet18").no_weight_decay() == set()


@pytest.mark.parametrize(
    "name, kwargs, message",
    [
        ("coc_tny", {}, "no model 'coc_tny'; ours are coc_"),
        ("vit_tiny_patch16_224", {}, r"gives maps of strides \[16, 16, 16.*needs strides 4, 8"),
        ("coc_tiny", dict(num_classes=0), "num_classes must be at least 1"),
    ],
)
def test_what_is_refused(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        pointmix.create_segmenter(name, **(dict(num_classes=2) | kwargs))


def test_inputs_that_do_not_suit_the_network():
    with pytest.raises(ValueError, match="the input has 4 channels, the model takes 3"):
        small()(torch.rand(1, 4, 8, 8))
    with pytest.raises(ValueError, match="positions have 3 dimensions, the model takes 2"):
        small()(PointSet.from_points(torch.rand(9, 3), torch.rand(9, 3)))
    partial = PointSet.from_image(torch.rand(3, 8, 8), torch.eye(8))
    with pytest.raises(ValueError, match="a network of timm takes whole images of one size, got some cells of 8x8"):
        small("resnet18")(partial)


SWIN = dict(img_size=64, window_size=2, embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))  # channels last


@pytest.mark.parametrize(
    "name, kwargs, taken",
    [("resnet18", {}, (1, 2, 3, 4)), ("swin_tiny_patch4_window7_224", SWIN, (0, 1, 2, 3))],
)
def test_a_network_of_timm_is_its_maps_under_the_same_head(name, kwargs, taken):
    network, image = small(name, **kwargs), torch.randn(1, 3, 64, 64)
    body = timm.create_model(name, features_only=True, out_indices=taken, **kwargs).eval()
    body.load_state_dict(network.backbone.body.state_dict())
    assert isinstance(network.head, SemanticFPN)
    with torch.no_grad():
        maps = body(image)
        if name.startswith("swin"):
            maps = [x.permute(0, 3, 1, 2) for x in maps]
        logits = network.head([PointSet.from_batch(x) for x in maps])
        coarse, _ = network(image, lift=False)
    torch.testing.assert_close(coarse.feat, logits.feat)


@pytest.mark.parametrize("compiled", [True, False])
def test_it_can_be_compiled_and_exported(compiled):
    network, images = small(), torch.randn(2, 3, 40, 36)
    with torch.no_grad():
        expected = network(images)
        if compiled:
            found = torch.compile(network, backend="eager", fullgraph=True)(images)
        else:
            found = torch.export.export(network, (images,)).module()(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["grid", "sparse", "cloud"])
def test_mixed_precision_is_close_and_trains(kind):
    network = small(**(dict(coord_dims=3, in_chans=0) if kind == "cloud" else {})).train()
    points = PointSet.from_images(torch.rand(2, 3, 32, 32))
    points = {"grid": points, "sparse": points.as_sparse(), "cloud": PointSet.from_points(torch.rand(400, 3))}[kind]
    network.head.drop.p = 0.0
    expected = network(points)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(points)
    assert (found.float() - expected).norm() < 0.05 * expected.norm()
    found.float().square().sum().backward()
    gradients = [p.grad for p in network.parameters() if p.requires_grad]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
