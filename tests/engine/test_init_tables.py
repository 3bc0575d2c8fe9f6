"""Tables of vision transformers of another size."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed, resample_patch_embed, resize_rel_pos_bias_table

from pointmix.engine.init import start_from
from pointmix.engine.init_tables import fit_table


def vit(**sizes):
    return timm.create_model("vit_tiny_patch16_224", depth=1, embed_dim=16, num_heads=2, num_classes=3, **sizes)


def started(tmp_path, given, model):
    torch.save(given.state_dict(), tmp_path / "weights.pth")
    return start_from(model, tmp_path / "weights.pth", name="it")


def test_positions_of_a_vision_transformer_are_those_that_timm_makes(tmp_path):
    given, model = vit(img_size=64), vit(img_size=(96, 48))
    taken = started(tmp_path, given, model)
    assert taken.resized == {"pos_embed"} and not taken.other_shape
    expected = resample_abs_pos_embed(given.pos_embed, [6, 3], [4, 4], num_prefix_tokens=1)
    assert torch.equal(model.pos_embed, expected) and torch.equal(model.pos_embed[:, 0], given.pos_embed[:, 0])
    assert [row for row in taken.table().columns[0]._cells if str(row) == "adapted"]


def test_patches_of_another_size(tmp_path):
    given, model = vit(img_size=64), vit(img_size=32, patch_size=8)
    taken = started(tmp_path, given, model)
    assert taken.resized == {"patch_embed.proj.weight"} and torch.equal(model.pos_embed, given.pos_embed)
    assert torch.equal(model.patch_embed.proj.weight, resample_patch_embed(given.patch_embed.proj.weight, [8, 8]))


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "beit_base_patch16_224"])
def test_tables_of_relative_positions(tmp_path, name):
    small = dict(embed_dim=16, num_heads=2, num_classes=3)
    small |= dict(depths=(2,), num_heads=(2,)) if "swin" in name else dict(depth=1)
    given, model = (
        timm.create_model(name, img_size=size, **small) for size in ((64, 32) if "beit" in name else (64, 16))
    )
    (table,) = [key for key in model.state_dict() if key.endswith("blocks.0.attn.relative_position_bias_table")]
    torch.nn.init.normal_(given.get_parameter(table))
    taken = started(tmp_path, given, model)
    assert table in taken.resized and not taken.other_shape
    owner, own = model.get_submodule(table.rpartition(".")[0]), model.get_parameter(table)
    expected = resize_rel_pos_bias_table(given.get_parameter(table), owner.window_size, tuple(own.shape))
    assert torch.equal(own, expected)


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 1, 16), (1, 12, 16), (2, 17, 16), (1, 17, 8), (17, 16), (1, 0, 16)])
def test_what_is_no_table_of_positions(shape):
    model = vit(img_size=96)
    assert fit_table(model, "pos_embed", torch.zeros(shape), model.pos_embed) is None
    assert fit_table(model, "norm.weight", torch.zeros(4), model.norm.weight) is None
    assert fit_table(model, "pos_embed", torch.zeros(1, 17, 16, dtype=torch.int64), model.pos_embed) is None


def test_a_swin_without_its_window():
    model = timm.create_model("swin_tiny_patch4_window7_224", img_size=64, embed_dim=16, depths=(2,), num_heads=(2,))
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    for shape in ((8, 2), (0, 2), (9, 3)):
        assert fit_table(model, name, torch.zeros(shape), model.get_parameter(name)) is None
