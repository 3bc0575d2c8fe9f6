"""Inference on images against the plain forward pass and against torch's interpolation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointmix import PointSet
from pointmix.tasks.segment.inference import base, images, rows
from pointmix.tasks.segment.inference.images import ImageInfer
from pointmix.tasks.segment.inference.rows import window_starts
from tests.tasks.segment.standin import StandIn


def an_image(height=13, width=17):
    return PointSet.from_images(torch.randn(1, 3, height, width))


def as_map(scores, height=13, width=17):
    return scores.view(height, width, -1)


@pytest.mark.parametrize("part", [40, 1 << 17])
@pytest.mark.parametrize("cut", [None, 1, 23])
def test_without_options_it_is_the_forward_pass(monkeypatch, part, cut):
    for module in (base, images, rows):
        monkeypatch.setattr(module, "PART", part)
    points, model = an_image(), StandIn(context=0.5, place=1.0, rows=cut)
    expected = model(points).softmax(1)
    scores = ImageInfer()(model, points)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected, rtol=0, atol=0)
    label, confidence = ImageInfer().labels(model, points)
    assert (label == expected.argmax(1)).all() and (confidence == expected.amax(1)).all()
    assert model.calls[1] is points  # the network sees the points that it was given


def test_every_image_of_a_batch_is_inferred_alone():
    both, model = PointSet.from_images(torch.randn(2, 3, 5, 6)), StandIn(context=2.0)
    alone = [ImageInfer(flip=True)(model, one) for one in both.unbind()]
    torch.testing.assert_close(ImageInfer(flip=True)(model, both), torch.cat(alone), rtol=0, atol=0)


def test_short_side_and_multiple_are_the_sizes_the_network_sees():
    points, model = an_image(), StandIn(place=1.0)
    infer = ImageInfer(short_side=20, size_multiple=8)
    scores = as_map(infer(model, points))
    seen = model.calls[0].layout.size
    assert seen == infer.input_size((13, 17)) == (24, 32)  # 20 x 26, then multiples of 8
    image = F.interpolate(points.to_image(), seen, mode="bilinear", antialias=True)
    logits = model(PointSet.from_images(image)).view(1, *seen, -1).permute(0, 3, 1, 2)
    expected = F.interpolate(logits, (13, 17), mode="bilinear").softmax(1)[0].permute(1, 2, 0)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("old", [(7, 9), (40, 30), (13, 5), (1, 1)])
@pytest.mark.parametrize("block", [1, 4, 100])
def test_rows_are_resized_as_by_torch(old, block):
    logits = torch.randn(*old, 3, dtype=torch.float64)
    chunks = iter(logits.split(3))
    found = torch.cat(list(rows.resized(chunks, old, (13, 17), block=block)))
    expected = F.interpolate(logits.permute(2, 0, 1)[None], (13, 17), mode="bilinear")[0].permute(1, 2, 0)
    torch.testing.assert_close(found, expected)


def test_windows_are_averaged_where_they_overlap():
    points, model = an_image(), StandIn(context=1.0)
    scores = as_map(ImageInfer(window=(6, 8), stride=(4, 5))(model, points))
    image = points.to_image()
    total, count = torch.zeros(13, 17, 4), torch.zeros(13, 17, 1)
    for top in (0, 4, 7):  # the last one is moved inside
        for left in (0, 5, 9):
            crop = PointSet.from_images(image[:, :, top : top + 6, left : left + 8])
            total[top : top + 6, left : left + 8] += model(crop).view(6, 8, 4)
            count[top : top + 6, left : left + 8] += 1
    assert count.min() >= 1
    torch.testing.assert_close(scores, (total / count).softmax(-1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "side, window, stride, starts",
    [(10, 10, 3, [0]), (11, 10, 3, [0, 1]), (16, 10, 3, [0, 3, 6]), (10, 4, 4, [0, 4, 6]), (1, 1, 1, [0])],
)
def test_windows_cover_the_side_and_end_with_it(side, window, stride, starts):
    assert window_starts(side, window, stride) == starts


@pytest.mark.parametrize("window", [(13, 17), (100, 100)])
def test_one_window_is_the_whole_image(window):
    points, model = an_image(), StandIn(context=1.0, place=1.0)
    found, whole = ImageInfer(window=window)(model, points), ImageInfer()(model, points)
    torch.testing.assert_close(found, whole, rtol=1e-6, atol=1e-7)


def test_windows_slide_over_the_resized_image():
    points, model = an_image(), StandIn(context=1.0)
    ImageInfer(short_side=26, window=(20, 20), stride=(20, 20))(model, points)
    assert {call.layout.size for call in model.calls} == {(20, 20)} and len(model.calls) == 4  # of 26 x 34


def test_flip_is_the_mean_of_both_views():
    points, model = an_image(), StandIn(place=3.0)
    scores = as_map(ImageInfer(flip=True)(model, points))
    mirrored = PointSet.from_images(points.to_image().flip(3))
    plain, other = (as_map(model(p).softmax(1)) for p in (points, mirrored))
    torch.testing.assert_close(scores, (plain + other.flip(1)) / 2)
    assert not torch.allclose(scores, plain, atol=1e-3)


def test_a_symmetric_image_has_symmetric_scores_with_flip():
    half = torch.randn(1, 3, 6, 5)
    points = PointSet.from_images(torch.cat([half, half.flip(3)], 3))
    scores = as_map(ImageInfer(flip=True)(StandIn(place=3.0), points), 6, 10)
    torch.testing.assert_close(scores, scores.flip(1))


def test_scales_are_averaged_probabilities():
    points, model = an_image(), StandIn(context=1.0, place=1.0)
    views = [ImageInfer(scales=(scale,))(model, points) for scale in (0.5, 1.0, 1.75)]
    scores = ImageInfer(scales=(0.5, 1.0, 1.75))(model, points)
    torch.testing.assert_close(scores, torch.stack(views).mean(0))
    assert [call.layout.size for call in model.calls[:3]] == [(7, 9), (13, 17), (23, 30)]
    torch.testing.assert_close(scores.sum(1), torch.ones(len(scores)))


@pytest.mark.parametrize("mode", ["inclusive", "exclusive"])
def test_a_full_sparse_grid_has_the_scores_of_the_grid(mode):
    points, model = PointSet.from_image(torch.randn(3, 5, 8), coord_mode=mode), StandIn(place=2.0)
    model.coord_mode = mode
    for infer in (ImageInfer(), ImageInfer(flip=True)):
        torch.testing.assert_close(infer(model, points.as_sparse()), infer(model, points), rtol=1e-6, atol=1e-6)


def test_hidden_pixels_have_no_scores():
    mask = torch.rand(5, 8) < 0.5
    points, model = PointSet.from_image(torch.randn(3, 5, 8), mask), StandIn(place=2.0)
    assert ImageInfer(flip=True)(model, points).shape == (int(mask.sum()), 4)


@pytest.mark.parametrize("options", [{"short_side": 9}, {"window": (2, 2)}, {"scales": (0.5,)}, {"size_multiple": 2}])
def test_partial_images_are_not_resized(options):
    points = an_image().as_sparse()
    with pytest.raises(ValueError, match="partial images are taken whole and in their own size"):
        ImageInfer(**options)(StandIn(), points)


@pytest.mark.parametrize("options", [{}, {"flip": True}, {"short_side": 4}, {"window": (3, 3)}, {"scales": (0.5, 2)}])
def test_an_image_of_one_pixel(options):
    scores = ImageInfer(**options)(StandIn(), an_image(1, 1))
    assert scores.shape == (1, 4) and torch.isfinite(scores).all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"short_side": 0}, "short_side must be at least 1, got 0"),
        ({"window": (0, 5)}, r"window must be at least 1, got \(0, 5\)"),
        ({"stride": (4, 4)}, r"stride \(4, 4\) is of sliding windows, but there are none"),
        ({"window": (4, 4), "stride": (4, 5)}, r"stride \(4, 5\) leaves gaps between windows of \(4, 4\)"),
        ({"scales": ()}, "expected at least one factor"),
        ({"scales": (0.0,)}, "scales must be above 0"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(ValueError, match=message):
        ImageInfer(**options)


def test_clouds_and_huge_sizes_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="expected an image, got a cloud"):
        ImageInfer()(StandIn(), an_image().as_cloud())
    monkeypatch.setenv("POINTMIX_MAX_IMAGE_PIXELS", "1000")
    with pytest.raises(ValueError, match="an image of 17x13, as the network sees it, has 6440"):
        ImageInfer(short_side=70)(StandIn(), an_image())
