from __future__ import annotations

import pytest
import timm
import torch
from timm.models import adapt_input_conv

import pointmix
from pointmix.engine.checkpoint import save_model
from pointmix.engine.init import start_from
from pointmix.engine.init_inputs import fit_channels, input_layer
from pointmix.models.segmenter import create_segmenter
from tests.engine.conftest import TINY


@pytest.mark.parametrize("ours", [1, 2, 5, 7])
def test_features_are_those_of_timm_and_coordinates_stay(ours):
    value = torch.randn(4, 3 + 2, 3, 3)
    found = fit_channels(value, torch.empty(4, ours + 2, 3, 3), coords=2, in_chans=3)
    assert torch.allclose(found[:, :ours], adapt_input_conv(ours, value[:, :3])) and found.shape == (4, ours + 2, 3, 3)
    assert torch.equal(found[:, ours:], value[:, 3:])


def test_gray_becomes_color_with_the_same_answer():
    value, gray = torch.randn(4, 1, 3, 3), torch.randn(2, 1, 8, 8)
    color = fit_channels(value, torch.empty(4, 3, 3, 3), coords=0, in_chans=None)
    expected = torch.nn.functional.conv2d(gray, value)
    assert torch.allclose(torch.nn.functional.conv2d(gray.expand(-1, 3, -1, -1), color), expected, atol=1e-5)


@pytest.mark.parametrize(
    "shape, coords, in_chans",
    [((4, 5, 2, 2), 2, 3), ((5, 5, 3, 3), 2, 3), ((4, 5, 3), 2, 3), ((4, 5, 3, 3), 2, -1), ((4, 5, 3, 3), 2, 6)],
)
def test_what_does_not_fit(shape, coords, in_chans):
    place = torch.empty(4, 1 + coords, 3, 3)
    assert fit_channels(torch.randn(shape), place, coords=coords, in_chans=in_chans) is None


@pytest.mark.parametrize(
    "theirs, their_dims, ours, dims, kept",
    [
        (3, 2, 3, 3, "colors"),  # an image and a colored cloud
        (2, 3, 3, 2, "colors"),  # of one shape, and yet another meaning
        (0, 3, 3, 3, "coordinates"),
        (3, 3, 0, 3, "coordinates"),
        (3, 3, 3, 3, "both"),
        (3, 2, 0, 3, None),
        (0, 2, 0, 3, None),
    ],
)
def test_channels_that_the_file_does_not_have_are_as_initialized(theirs, their_dims, ours, dims, kept):
    value, place = torch.randn(4, theirs + their_dims, 3, 3), torch.randn(4, ours + dims, 3, 3)
    found = fit_channels(value, place, coords=dims, in_chans=theirs)
    if kept is None:
        assert found is None
        return
    assert (found is value) == (kept == "both") and found.shape == place.shape
    has_colors, has_coordinates = kept in ("colors", "both"), kept in ("coordinates", "both")
    assert torch.equal(found[:, ours:], value[:, theirs:] if has_coordinates else place[:, ours:])
    if has_colors:
        assert torch.allclose(found[:, :ours], value[:, :3] if theirs == 3 else value[:, [0, 1, 0]] * 2 / 3)
    elif ours:
        assert torch.equal(found[:, :ours], place[:, :ours])


def test_files_of_others_with_convolutions_meet_rows_and_columns():
    value, place = torch.randn(4, 3 + 2, 4, 4), torch.randn(4, 3 + 3, 4, 4)
    found = fit_channels(value, place, coords=3, in_chans=None)
    assert torch.equal(found[:, :3], value[:, :3]) and torch.equal(found[:, 3:], place[:, 3:])
    flat, wide = torch.randn(4, 3, 1), torch.randn(4, 6)  # of PointMLP's authors: a 1x1 convolution of x, y, z
    found = fit_channels(flat, wide, coords=3, in_chans=None)
    assert torch.equal(found[:, 3:], flat[..., 0]) and torch.equal(found[:, :3], wide[:, :3])


def test_point_mlp_of_other_features(tmp_path):
    small = dict(num_classes=3, dim=8, expansion=[2], neighbors=4, pre_blocks=[1], pos_blocks=[1])
    bare = pointmix.create_model("pointmlp", in_chans=0, **small)
    save_model(tmp_path / "model.safetensors", bare, {"task": "classify_points", "in_chans": 0})
    model = pointmix.create_model("pointmlp", in_chans=3, **small)
    before = model.stem.linear.weight.clone()
    assert start_from(model, tmp_path, name="pointmlp").resized == {"stem.linear.weight"}
    found = model.stem.linear.weight
    assert torch.equal(found[:, 3:], bare.stem.linear.weight) and torch.equal(found[:, :3], before[:, :3])


@pytest.mark.parametrize("make", [pointmix.create_model, create_segmenter])
def test_a_network_of_gray_images_starts_from_one_of_colors(tmp_path, make):
    source = pointmix.create_model("coc_tiny", num_classes=3, in_chans=3, **TINY)
    save_model(tmp_path / "model.safetensors", source, {"task": "classify_images", "in_chans": 3})
    model = make("coc_tiny", num_classes=3, in_chans=1, **TINY)
    taken = start_from(model, tmp_path, name="coc_tiny")
    assert taken.resized == {"stages.0.reducer.weight"} and "stages.0.reducer.weight" not in taken.other_shape
    name, coords = input_layer(model)
    found, given = model.state_dict()[name], source.stages[0].reducer.weight
    assert coords == 2 and torch.allclose(found[:, :1], given[:, :3].sum(1, keepdim=True))
    assert torch.equal(found[:, 1:], given[:, 3:])
    clouds = pointmix.create_model("coc_tiny", num_classes=3, in_chans=3, coord_dims=3, **TINY)
    before = clouds.state_dict()[first := "stages.0.reducer.weight"].clone()
    taken = start_from(clouds, tmp_path, name="coc_tiny")  # rows and columns are not x, y, z
    assert taken.resized == {first} and not taken.other_input
    assert torch.equal(clouds.state_dict()[first][:, :3], source.state_dict()[first][:, :3])
    assert torch.equal(clouds.state_dict()[first][:, 3:], before[:, 3:])
    bare = pointmix.create_model("coc_tiny", num_classes=3, in_chans=0, coord_dims=3, **TINY)
    taken = start_from(bare, tmp_path, name="coc_tiny")
    assert taken.other_input == {first} and first not in taken.places
    assert "left out, other coordinates" in [str(cell) for cell in taken.table().columns[0]._cells]


def test_a_network_of_timm(tmp_path):
    source = timm.create_model("resnet10t", num_classes=3)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    model = timm.create_model("resnet10t", num_classes=3, in_chans=1)
    taken = start_from(model, tmp_path / "weights.pth", name="resnet10t")
    assert taken.resized == {"conv1.0.weight"} and not taken.other_shape
    assert torch.allclose(model.conv1[0].weight, source.conv1[0].weight.sum(1, keepdim=True))
    assert [row for row in taken.table().columns[0]._cells if str(row) == "adapted"]


def test_tables_of_positions_of_another_size_are_interpolated(tmp_path):
    small = TINY | {"rel_pos": True, "heads": 2, "head_dim": 4, "global_centers_per_side": [2, None]}
    source, model = (
        pointmix.create_model("hcformer_tiny", num_classes=3, table_size=sides, **small) for sides in ([4, 2], [8, 4])
    )
    name = "stages.0.blocks.0.mixer.bias_patch"
    torch.nn.init.normal_(source.get_parameter(name))
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    taken = start_from(model, tmp_path / "weights.pth", name="hcformer_tiny")
    assert name in taken.resized and not taken.other_shape
    found, given = model.get_parameter(name), source.get_parameter(name)
    assert found.shape[2:] == (8, 8) and torch.equal(found[..., ::7, ::7], given[..., ::3, ::3])  # the corners
