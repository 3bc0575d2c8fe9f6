"""A detector on full maps: maps (B, C, H, W) through the backbone and the FPN in convolutions, with the weights of one
of our detectors of the CoC family. Proposals, boxes and masks are the same in both, with convolutions by torch here.

A contender of benchmarks/run.py.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

import torch
from segment_literal import LiteralPyramid

import pointmix
from pointmix.data.detect.sample import Target

CLASSES, OBJECTS = 80, 8


def step(name: str, kind: str, batch: int, args: Namespace) -> Callable[[], None]:
    """A training step of `batch` images of `args.size` pixels with eight objects each, "ours" or "literal"."""
    torch.manual_seed(0)
    network = pointmix.create_detector(name, CLASSES).to(args.device).train()
    images = torch.randn(batch, 3, args.size, args.size, device=args.device)
    targets = [objects(args.size, args.device) for _ in range(batch)]
    points = pointmix.PointSet.from_images(images)
    if kind == "literal":
        pyramid = LiteralPyramid(network.backbone)
        network.maps = lambda _: pyramid.fpn(pyramid(images), network.neck)

    def run() -> None:
        with pointmix.ops.use_backend("torch" if kind == "literal" else None):
            sum(network(points, targets=targets).values()).backward()
        network.zero_grad()

    return run


def objects(size: int, device: str) -> Target:
    """Squares of a sixteenth to a half of the image's side."""
    side = size / 2 ** (1 + 3 * torch.rand(OBJECTS, 1))
    corner = torch.rand(OBJECTS, 2) * (size - side)
    boxes = torch.cat([corner, corner + side], 1)
    at = torch.arange(size) + 0.5
    x1, y1, x2, y2 = boxes.unsqueeze(-1).unbind(1)
    masks = ((y1 < at) & (at < y2)).unsqueeze(2) & ((x1 < at) & (at < x2)).unsqueeze(1)
    return Target(boxes.to(device), torch.randint(CLASSES, (OBJECTS,), device=device), masks.byte().to(device))
