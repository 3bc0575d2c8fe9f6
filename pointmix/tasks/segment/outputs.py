"""Predicted labels as files: palette images, overlays, confidence, and colored clouds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from pointmix.explain.overlay import overlay
from pointmix.io.registry import require
from pointmix.utils.atomic import replacing

HIDDEN = 255  # value of pixels without a label in palette images
UNLABELED = 225  # gray of pixels and points without a label
LabelMap = Int[np.ndarray, "H W"]  # negative where there is no label


class OutputNames:
    """Names of output files: those of the inputs, numbered where another input has the same or where the output would
    be an input.

    Args:
        folder: of the outputs.
        inputs: files that must not be overwritten.
    """

    def __init__(self, folder: Path, inputs: Iterable[str]) -> None:
        self.folder, self.inputs, self.taken = folder, {Path(path).resolve() for path in inputs}, set[str]()

    def __call__(self, path: str, endings: Sequence[str]) -> list[Path]:
        """The outputs of an input: its name with each of these endings."""
        number = 1
        while True:
            name = Path(path).stem + (f"_{number}" if number > 1 else "")
            files = [self.folder / (name + ending) for ending in endings]
            if name not in self.taken and not self.inputs & {file.resolve() for file in files}:
                self.taken.add(name)
                return files
            number += 1


def write_image(
    label: LabelMap,
    confidence: Float[np.ndarray, "H W"] | None,
    image: Image.Image,
    classes: Sequence[str],
    colors: UInt8[np.ndarray, "K 3"],
    files: Sequence[Path],
) -> None:
    """Write the labels, their overlay over the image and, if given, their confidence (255 for 1) as PNG.

    Args:
        files: for each of them.
    """
    pictures = [palette_image(label, colors), overlay(image, label, classes, colors)]
    if confidence is not None:
        pictures.append(Image.fromarray((255 * confidence).round().astype(np.uint8)))
    for picture, file in zip(pictures, files, strict=True):
        _write(file, lambda opened, picture=picture: picture.save(opened, format="png"))  # type: ignore[misc]


def palette_image(label: LabelMap, colors: UInt8[np.ndarray, "K 3"]) -> Image.Image:
    """Labels as the indices of an image with a palette; pixels without a label are `HIDDEN`. For more than 255 classes
    a grayscale image of 16 bits without a palette, in which they are 65535."""
    if len(colors) > HIDDEN:
        return Image.fromarray(np.where(label < 0, 65535, label).astype(np.uint16))
    picture = Image.fromarray(np.where(label < 0, HIDDEN, label).astype(np.uint8)).convert("P")
    table = np.full((256, 3), 0, np.uint8)
    table[: len(colors)], table[HIDDEN] = colors, UNLABELED
    picture.putpalette(table.tobytes())
    return picture


def write_ply(
    pos: Float[np.ndarray, "N 3"],
    label: Int[np.ndarray, "N"],
    confidence: Float[np.ndarray, "N"],
    colors: UInt8[np.ndarray, "K 3"],
    file: Path,
) -> None:
    """Write a .ply with x, y, z (in double precision if they need it), the color of the class, label and confidence.
    Points without a label (negative) are gray.

    Raises:
        ModuleNotFoundError: plyfile is not installed.
    """
    plyfile = require("plyfile", file)
    place = "f4" if np.array_equal(pos.astype(np.float32), pos, equal_nan=True) else "f8"
    own = np.where(label[:, None] < 0, np.uint8(UNLABELED), colors[label])
    kinds = [*((axis, place) for axis in "xyz"), *((name, "u1") for name in ("red", "green", "blue"))]
    vertices = np.empty(len(pos), dtype=[*kinds, ("label", "i4"), ("confidence", "f4")])
    for i, axis in enumerate("xyz"):
        vertices[axis] = pos[:, i]
    for i, name in enumerate(("red", "green", "blue")):
        vertices[name] = own[:, i]
    vertices["label"], vertices["confidence"] = label, confidence
    _write(file, plyfile.PlyData([plyfile.PlyElement.describe(vertices, "vertex")]).write)


def write_npy(label: Int[np.ndarray, "N"], confidence: Float[np.ndarray, "N"], file: Path) -> None:
    """Write a .npy with a record of label (int32) and confidence (float32) for each point, in the order of the file."""
    records = np.empty(len(label), dtype=[("label", "i4"), ("confidence", "f4")])
    records["label"], records["confidence"] = label, confidence
    _write(file, lambda opened: np.save(opened, records))


def _write(file: Path, save: Callable[[BinaryIO], object]) -> None:
    with replacing(file) as opened:
        save(opened)
