"""Transforms of point sets. Each takes a batch of any sizes, treats every set separately, and returns a batch:

    points = rotate(points, degrees=180)
    augment = compose([partial(scale, factor=(0.8, 1.25)), shuffle])

Random numbers come from `generator`, or from torch's global generator on the CPU, so that a seed gives the same result
on every device. Positions are transformed about the origin, in float32 if they are of half precision.
"""

from pointmix.data.transforms.common import Transform, compose
from pointmix.data.transforms.geometry import center, jitter, rotate, scale, translate, unit_cube, unit_sphere
from pointmix.data.transforms.select import crop, dropout, shuffle

__all__ = [
    "Transform",
    "center",
    "compose",
    "crop",
    "dropout",
    "jitter",
    "rotate",
    "scale",
    "shuffle",
    "translate",
    "unit_cube",
    "unit_sphere",
]
