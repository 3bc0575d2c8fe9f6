"""The inference that settings and flags ask for."""

from __future__ import annotations

import dataclasses
from argparse import ArgumentParser

import pytest
import torch

from pointmix import PointSet
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.resolve import resolve
from pointmix.tasks.segment.flags import add_arguments
from pointmix.tasks.segment.inference.choose import choose_infer
from pointmix.tasks.segment.inference.images import ImageInfer
from tests.tasks.segment.standin import StandIn


def flags(*argv):
    parser = ArgumentParser()
    add_arguments(parser, "evaluate")
    return parser.parse_args(argv)


def images(**changes):
    return resolve(SegmentDataConfig(source="scenes", **changes))


def clouds(**changes):
    return dataclasses.replace(resolve(SegmentDataConfig(source="scenes3d")), **changes)


def test_images_as_in_validation_and_with_flags():
    assert choose_infer(images()) == choose_infer(images(), flags()) == ImageInfer()
    asked = flags("--sliding", "8", "9", "--stride", "4", "5", "--flip", "--scales", "0.5", "1")
    expected = ImageInfer(40, 8, window=(8, 9), stride=(4, 5), flip=True, scales=(0.5, 1.0))
    assert choose_infer(images(short_side=40, size_multiple=8), asked) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"crop": "none", "grid_size": None, "crop_extent": None, "max_points": None},
        {"crop": "none", "grid_size": 0.5, "crop_extent": None, "max_points": 50},
        {"crop": "sphere", "grid_size": None, "crop_extent": 1.0, "max_points": 30},
        {"crop": "box", "grid_size": 0.3, "crop_extent": 1.5, "max_points": None},
        {"crop": "sphere", "grid_size": 0.3, "crop_extent": None, "max_points": 40},
    ],
)
@pytest.mark.parametrize("argv", [[], ["--votes", "2"], ["--fast"]])
def test_every_point_of_a_scene_gets_a_score_with_crops_as_in_training(changes, argv):
    points = PointSet.from_points(4 * torch.rand(300, 3), torch.randn(300, 3))
    model = StandIn(dims=3, context=1.0, place=1.0)
    scores = choose_infer(clouds(**changes), flags(*argv))(model, points)
    assert scores.shape == (300, 4)
    torch.testing.assert_close(scores.sum(1), torch.ones(300))
    sizes = torch.cat([call.ptr.diff() for call in model.calls])
    assert sizes.max() <= (changes["max_points"] or 300)
    if changes["crop"] == "box":
        assert max(call.pos[:, 0].abs().max() for call in model.calls) <= 1.06  # half the diagonal of a turned box
    if argv == ["--votes", "2"]:
        assert len(model.calls) % 2 == 0


@pytest.mark.parametrize(
    "cfg, argv, message",
    [
        (clouds(), ["--flip"], "--flip is for images; data.source scenes3d has clouds"),
        (clouds(), ["--scales", "1"], "--scales is for images"),
        (clouds(), ["--votes", "0"], "votes must be at least 1, got 0"),
        (images(), ["--votes", "2"], "--votes 2 is for clouds; data.source scenes has images"),
        (images(), ["--fast"], "--fast is for clouds; data.source scenes has images"),
        (images(), ["--stride", "2", "2"], "stride .* is of sliding windows"),
        (images(keep_ratio=0.5, short_side=40), [], "data.short_side resizes or divides images; partial ones are"),
        (images(keep_ratio=(0.5, 1.0)), ["--sliding", "4", "4"], "--sliding or --scales resizes or divides images"),
    ],
)
def test_flags_of_the_other_kind_are_refused(cfg, argv, message):
    with pytest.raises(ValueError, match=message):
        choose_infer(cfg, flags(*argv))


def test_partial_images_are_flipped():
    assert choose_infer(images(keep_ratio=0.5), flags("--flip")) == ImageInfer(flip=True)


@pytest.mark.parametrize("crop, bound", [("box", 1.0), ("sphere", 2.8), ("none", 1.0)])
def test_fast_sees_fewer_points(crop, bound):
    points = PointSet.from_points(4 * torch.rand(3000, 3), torch.randn(3000, 3))
    cfg = clouds(crop=crop, grid_size=0.5, crop_extent=None if crop == "none" else 1.5, max_points=None)
    cells = len(((points.pos - points.pos.amin(0)) / 0.5).floor().unique(dim=0))
    seen = {}
    for argv in ([], ["--fast"]):
        model = StandIn(dims=3)
        choose_infer(cfg, flags(*argv))(model, points)
        seen[bool(argv)] = sum(len(call.feat) for call in model.calls)
    assert cells <= seen[True] <= bound * cells and seen[False] > 3 * seen[True]
