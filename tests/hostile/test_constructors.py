"""What is handed to point sets and networks as Python objects."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import pointmix
from pointmix import PointSet

NAN, INF = float("nan"), float("inf")
IMAGE, CLOUD = torch.rand(3, 4, 5), torch.rand(6, 3)
ROWS, COLS, VALUES = torch.tensor([0, 1]), torch.tensor([2, 3]), torch.rand(2, 3)
DEPTH = torch.ones(4, 5)


def pixels(values=VALUES, rows=ROWS, cols=COLS, size=(4, 5), **kwargs):
    return PointSet.from_pixels(values, rows, cols, size, **kwargs)


def rgbd(rgb=IMAGE, depth=DEPTH, **kwargs):
    return PointSet.from_rgbd(rgb, depth, **kwargs)


POINTS = {
    "image of text": lambda: PointSet.from_image("cat.png"),
    "image of nothing": lambda: PointSet.from_image(None),
    "image of a list": lambda: PointSet.from_image([[1, 2], [3, 4]]),
    "image of one dimension": lambda: PointSet.from_image(torch.rand(5)),
    "image of four dimensions": lambda: PointSet.from_image(torch.rand(2, 3, 4, 5)),
    "empty image": lambda: PointSet.from_image(torch.rand(3, 0, 5)),
    "image without channels": lambda: PointSet.from_image(torch.rand(0, 4, 5)),
    "image of int64": lambda: PointSet.from_image(torch.ones(3, 4, 5, dtype=torch.int64)),
    "image of complex numbers": lambda: PointSet.from_image(torch.ones(3, 4, 5, dtype=torch.complex64)),
    "image with NaN": lambda: PointSet.from_image(torch.full((3, 4, 5), NAN)),
    "image with infinity": lambda: PointSet.from_image(torch.full((3, 4, 5), INF)),
    "too many means": lambda: PointSet.from_image(IMAGE, mean=[0.5, 0.5]),
    "too many deviations": lambda: PointSet.from_image(IMAGE, std=[1, 1, 1, 1]),
    "unknown coordinates": lambda: PointSet.from_image(IMAGE, coord_mode="pixels"),
    "mask of another size": lambda: PointSet.from_image(IMAGE, torch.ones(5, 4)),
    "mask that hides all": lambda: PointSet.from_image(IMAGE, torch.zeros(4, 5)),
    "mask with NaN": lambda: PointSet.from_image(IMAGE, torch.full((4, 5), NAN)),
    "mask of text": lambda: PointSet.from_image(IMAGE, "mask.png"),
    "no images": lambda: PointSet.from_images([]),
    "empty batch": lambda: PointSet.from_images(torch.rand(0, 3, 4, 5)),
    "batch of three dimensions": lambda: PointSet.from_images(torch.rand(3, 4, 5)),
    "batch with NaN": lambda: PointSet.from_images(torch.full((2, 3, 4, 5), NAN)),
    "more masks than images": lambda: PointSet.from_images([IMAGE], [None, None]),
    "images of other channels": lambda: PointSet.from_images([IMAGE, IMAGE[:1]]),
    "points of one dimension": lambda: PointSet.from_points(torch.rand(6)),
    "points of three dimensions": lambda: PointSet.from_points(torch.rand(2, 6, 3)),
    "no points": lambda: PointSet.from_points(torch.rand(0, 3)),
    "points without coordinates": lambda: PointSet.from_points(torch.rand(6, 0)),
    "points with NaN": lambda: PointSet.from_points(torch.full((6, 3), NAN)),
    "points with infinity": lambda: PointSet.from_points(torch.full((6, 3), INF)),
    "fewer features than points": lambda: PointSet.from_points(CLOUD, torch.rand(5, 1)),
    "features of three dimensions": lambda: PointSet.from_points(CLOUD, torch.rand(6, 1, 1)),
    "features with NaN": lambda: PointSet.from_points(CLOUD, torch.full((6, 1), NAN)),
    "pixels without values": lambda: pixels(values=torch.rand(0, 3), rows=ROWS[:0], cols=COLS[:0]),
    "more rows than values": lambda: pixels(rows=torch.tensor([0, 1, 2])),
    "rows in floats": lambda: pixels(rows=ROWS.float()),
    "rows in bools": lambda: pixels(rows=ROWS.bool()),
    "rows outside": lambda: pixels(rows=torch.tensor([0, 4])),
    "rows below zero": lambda: pixels(rows=torch.tensor([0, -1])),
    "columns outside": lambda: pixels(cols=torch.tensor([2, 5])),
    "a pixel given twice": lambda: pixels(rows=torch.tensor([0, 0]), cols=torch.tensor([2, 2])),
    "pixels with NaN": lambda: pixels(values=torch.full((2, 3), NAN)),
    "a lattice of one side": lambda: pixels(size=(4,)),
    "a lattice of three sides": lambda: pixels(size=(4, 5, 6)),
    "a lattice in a number": lambda: pixels(size=4),
    "a lattice of floats": lambda: pixels(size=(4.0, 5.0)),
    "a lattice of nothing": lambda: pixels(size=(0, 0)),
    "a lattice below zero": lambda: pixels(size=(-4, 5)),
    "a lattice of 2^34": lambda: pixels(size=(2**34, 2**34)),
    "a lattice of 2^70": lambda: pixels(size=(2**70, 2**70)),
    "pixels, unknown coordinates": lambda: pixels(coord_mode="x"),
    "depth of another size": lambda: rgbd(depth=torch.ones(5, 4)),
    "depth of text": lambda: rgbd(depth=np.array([["a"]])),
    "depth of complex numbers": lambda: rgbd(depth=DEPTH.to(torch.complex64)),
    "depth of bools": lambda: rgbd(depth=DEPTH.bool()),
    "no depth anywhere": lambda: rgbd(depth=DEPTH * 0),
    "depth of NaN": lambda: rgbd(depth=DEPTH * NAN),
    "depth in four dimensions": lambda: rgbd(depth=torch.ones(1, 1, 4, 5)),
    "depth scale zero": lambda: rgbd(depth_scale=0),
    "depth scale NaN": lambda: rgbd(depth_scale=NAN),
    "three intrinsics": lambda: rgbd(intrinsics=[1, 2, 3]),
    "intrinsics of zero": lambda: rgbd(intrinsics=[0, 0, 0, 0]),
    "intrinsics of NaN": lambda: rgbd(intrinsics=[NAN, 1, 0, 0]),
    "intrinsics of two rows": lambda: rgbd(intrinsics=torch.eye(3)[:2]),
    "depth hidden everywhere": lambda: rgbd(mask=torch.zeros(4, 5)),
    "batch of two dimensions": lambda: PointSet.from_batch(torch.rand(4, 5)),
    "batch of five dimensions": lambda: PointSet.from_batch(torch.rand(1, 1, 1, 4, 5)),
    "no sets to join": lambda: PointSet.cat([]),
    "cloud joined to an image": lambda: PointSet.cat([PointSet.from_points(CLOUD), PointSet.from_image(IMAGE)]),
    "sets of other widths": lambda: PointSet.cat([PointSet.from_points(CLOUD), PointSet.from_points(CLOUD[:, :2])]),
    "subset of none": lambda: PointSet.from_points(CLOUD).subset(torch.zeros(6, dtype=torch.bool)),
    "subset by a short mask": lambda: PointSet.from_points(CLOUD).subset(torch.ones(5, dtype=torch.bool)),
    "subset out of range": lambda: PointSet.from_points(CLOUD).subset(torch.tensor([6])),
    "subset below zero": lambda: PointSet.from_points(CLOUD).subset(torch.tensor([-1])),
    "subset of one point twice": lambda: PointSet.from_points(CLOUD).subset(torch.tensor([1, 1])),
    "image of a cloud": lambda: PointSet.from_points(CLOUD).to_image(),
    "a Pillow image without a side": lambda: PointSet.from_image(Image.new("RGB", (0, 5))),
}
SMALL = dict(depths=(1, 1, 1, 1), dims=(4, 4, 4, 4), heads=2, head_dim=2, num_classes=2)
MODELS = {
    "unknown model": lambda: pointmix.create_model("coc_gigantic"),
    "empty name of a model": lambda: pointmix.create_model(""),
    "model from the network": lambda: pointmix.create_model("hf-hub:someone/model"),
    "pretrained": lambda: pointmix.create_model("coc_tiny", pretrained=True),
}
INPUTS = {
    "channels that the network does not take": lambda net: net(torch.rand(1, 4, 32, 32)),
    "points of another width": lambda net: net(PointSet.from_image(torch.rand(5, 32, 32))),
}


@pytest.mark.parametrize("case", POINTS)
def test_points(case, refused):
    refused(POINTS[case])


@pytest.mark.parametrize("case", MODELS)
def test_models(case, refused):
    refused(MODELS[case])


@pytest.mark.parametrize("case", INPUTS)
def test_inputs_of_a_model(case, refused):
    net = pointmix.create_model("coc_tiny", **SMALL).eval()
    refused(lambda: INPUTS[case](net))
