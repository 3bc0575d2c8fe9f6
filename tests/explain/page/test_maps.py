"""Class activation and attention."""

from __future__ import annotations

import pytest
import timm
import torch

import pointmix
from pointmix import PointSet
from pointmix.explain.page.maps import attention_maps, class_maps
from pointmix.explain.page.scene import cloud_scene, image_scene
from tests.explain.page.test_clusters import tiny


def values(found):
    return found.low + found.value / 255 * (found.high - found.low)


def test_shares_and_bias_add_up_to_the_logit():
    """Zhou et al.: of a mean over points and a linear map."""
    model, x = tiny(), torch.rand(1, 3, 32, 24)
    with torch.no_grad():
        logits, last = model(x)[0], model.forward_features(x)[0].flatten(1)  # (C, n)
    names = [("a", 2), ("b", 0)]
    for found, (name, label) in zip(class_maps(image_scene(x), model, names), names, strict=True):
        assert found.name == f"class activation: {name}" and len(found.nearest) == 32 * 24
        expected = model.head.weight[label].detach() @ last / last.shape[1]
        torch.testing.assert_close(torch.tensor(values(found)), expected.double(), atol=1e-4, rtol=0)
        total = values(found).sum() + model.head.bias[label].item()
        assert total == pytest.approx(logits[label].item(), abs=1e-3)


def test_shares_of_a_cloud_with_a_deeper_head():
    torch.manual_seed(0)
    model = pointmix.create_model("pointmlp_elite", num_classes=4, neighbors=6).eval()
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d)):
        norm.running_mean.normal_(std=0.1)
    points = PointSet.from_points(torch.rand(64, 3))
    (found,) = class_maps(cloud_scene(points), model, [("a", 1)])
    with torch.no_grad():  # along a ray the logit is linear as long as no ReLU or maximum changes
        feat = model.forward_features(points)
        step = 1e-3
        change = (model.forward_head(feat.with_feat(feat.feat * (1 + step))) - model.forward_head(feat))[0, 1]
    assert values(found).sum() == pytest.approx(change.item() / step, rel=0.02)


def test_convolutions_and_transformers_of_timm():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 64, 64)
    scene = image_scene(x)
    model = timm.create_model("test_resnet", num_classes=5).eval()
    (found,) = class_maps(scene, model, [("a", 3)])
    with torch.no_grad():
        maps = model.forward_features(x)[0]  # (C, h, w)
        share = torch.einsum("chw,c->hw", maps, model.fc.weight[3]) / maps[0].numel()
    torch.testing.assert_close(torch.tensor(values(found)), share.flatten().double(), atol=1e-4, rtol=1e-2)
    cell = 64 // maps.shape[1]
    expected = torch.arange(maps[0].numel()).view(maps.shape[1:]).repeat_interleave(cell, 0).repeat_interleave(cell, 1)
    assert found.nearest.tolist() == expected.flatten().tolist() and attention_maps(scene, model) == []


def test_attention_of_the_class_token():
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=5, img_size=64).eval()
    x = torch.rand(1, 3, 64, 64)
    scene = image_scene(x)
    with torch.no_grad():
        before, found = model(x), attention_maps(scene, model)
        assert model(x).equal(before) and model.blocks[0].attn.fused_attn  # the network is as it was
        tokens = model.norm_pre(model._pos_embed(model.patch_embed(x)))
        layer = model.blocks[0].attn
        q, k, _ = (
            layer.qkv(model.blocks[0].norm1(tokens)).unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
        )
        q, k = layer.q_norm(q), layer.k_norm(k)
        attention = (q @ k.transpose(-2, -1) * layer.scale).softmax(-1).mean(1)[0, 0, 1:]
    assert [m.name for m in found] == [f"attention, block {i + 1}" for i in range(len(model.blocks))]
    torch.testing.assert_close(torch.tensor(values(found[0])).float(), attention, atol=1e-4, rtol=0)
    assert class_maps(scene, model, [("a", 1)]) == []  # its head reads the class token alone
