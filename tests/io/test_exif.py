"""Photographs that say how they were held: upright wherever an image is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointmix import PointSet
from pointmix.data.images.config import DataConfig
from pointmix.data.images.mask_values import read_values
from pointmix.data.images.splits import build_data
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.images.rgbd import read_meters
from pointmix.data.segment.splits import open_split
from pointmix.io import read_depth, read_image, read_mask
from pointmix.io.errors import UnreadableSample
from pointmix.io.image_files import read_size
from pointmix.io.images import ORIENTATION, upright
from pointmix.tasks.classify_images.files import whole_image

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)  # as it is shown
STORED = {  # EXIF orientation -> what a camera that was held that way stores
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x, -1),
}


def save(path: Path, pixels: np.ndarray, orientation: int) -> Path:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(np.ascontiguousarray(STORED[orientation](pixels))).save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("end", ["png", "tiff", "webp"])
def test_every_orientation(tmp_path, orientation, end):
    path = tmp_path / f"a.{end}"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](PIXELS)))
    stored.save(path, exif=exif, **({"lossless": True} if end == "webp" else {}))
    assert np.array_equal(read_image(path, 3), PIXELS) and read_size(path) == (6, 9)
    expected = PointSet.from_image(PIXELS)
    assert torch.equal(PointSet.from_file(path).feat, expected.feat)
    with Image.open(path) as image:
        points = PointSet.from_image(image)
    assert points.layout == expected.layout and torch.equal(points.feat, expected.feat)


def test_the_size_of_files_that_are_no_images(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    for name, message in (("a.png", "cannot identify"), ("b.png", "no image file"), ("", "a folder")):
        with pytest.raises(UnreadableSample, match=message):
            read_size(tmp_path / name)


def test_masks_are_of_the_image_as_it_is_shown(tmp_path):
    mask = np.zeros((6, 9), dtype=np.uint8)
    mask[1, 2:5] = 255
    image = save(tmp_path / "a.png", PIXELS, 6)
    Image.fromarray(mask).save(tmp_path / "plain.png")
    for path in (tmp_path / "plain.png", save(tmp_path / "turned.png", mask, 8)):
        assert torch.equal(read_mask(path, (6, 9)), torch.from_numpy(mask > 0))
        points = PointSet.from_file(image, path)
        assert torch.equal(points.layout.cell, torch.from_numpy(mask).nonzero())
        assert torch.equal(points.feat, torch.from_numpy(PIXELS[mask > 0] / np.float32(255)))
        with Image.open(image) as picture, Image.open(path) as shown:
            assert torch.equal(PointSet.from_image(picture, shown).feat, points.feat)


def test_masks_and_depth_of_the_stored_size_are_refused(tmp_path):
    image = save(tmp_path / "a.png", PIXELS, 6)
    stored = np.ones((9, 6), dtype=np.uint16)
    Image.fromarray(stored).save(tmp_path / "stored.png")
    shown = r"is 9x6, the image is 6x9 \(rows x columns\); expected that of the image as it is shown, after its EXIF"
    for read in (
        lambda: read_mask(tmp_path / "stored.png", (6, 9)),
        lambda: read_values(tmp_path / "stored.png", (6, 9), colors=False),
        lambda: read_meters(tmp_path / "stored.png", 1000.0, (6, 9)),
        lambda: PointSet.from_rgbd(read_image(image), stored),
    ):
        with pytest.raises(ValueError, match=shown):
            read()


def test_labels_and_depth_of_segmentation_are_of_the_image_as_it_is_shown(tmp_path):
    label, depth = np.arange(54).reshape(6, 9).astype(np.uint8), np.arange(500, 554, dtype=np.uint16).reshape(6, 9)
    for number, orientation in enumerate(STORED):
        for split in ("train", "test"):
            (tmp_path / split).mkdir(exist_ok=True)
            save(tmp_path / split / f"{number}_rgb.png", PIXELS, orientation)
            Image.fromarray(depth).save(tmp_path / split / f"{number}_depth.png")
            save(tmp_path / split / f"{number}_label.png", label, orientation if number % 2 else 1)
    cfg = SegmentDataConfig(source="rgbd", root=str(tmp_path), classes=tuple(map(str, range(54))))
    source = open_split(cfg, "train")
    for index in range(len(STORED)):
        sample = source.read(index)
        assert np.array_equal(np.asarray(sample.image), PIXELS) and np.array_equal(sample.label, label)
        assert np.array_equal(sample.depth, (depth / 1000).astype(np.float32))


def test_depth_is_upright_too(tmp_path):
    depth = np.arange(500, 554, dtype=np.uint16).reshape(6, 9)
    path = save(tmp_path / "a.png", depth, 6)
    assert np.array_equal(read_depth(path), depth)
    with Image.open(path) as image:
        points = PointSet.from_rgbd(PIXELS, image)
    assert torch.equal(points.pos, PointSet.from_rgbd(PIXELS, depth).pos)


@pytest.mark.parametrize("cache", [False, True])
def test_training_sees_what_prediction_sees(tmp_path, cache):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for orientation in (1, 6):
                save(tmp_path / split / name / f"{orientation}.png", PIXELS, orientation)
    cfg = DataConfig(source="folder", root=str(tmp_path), img_size=6, val_fraction=0.0, cache=cache)
    splits = build_data(cfg, batch_size=4, eval_batch_size=4, seed=0)
    images, _ = next(iter(splits.test))
    expected = whole_image(Image.fromarray(PIXELS), splits.config)
    assert all(torch.equal(image, expected) for image in images.to("cpu"))
    assert torch.equal(whole_image(read_image(tmp_path / "val/cat/6.png", 3), splits.config), expected)


def test_what_has_no_orientation_that_can_be_read_is_left_alone():
    image = Image.fromarray(PIXELS)
    assert upright(image) is image
    image.info["exif"] = b"Exif\0\0II*\0 damaged"
    assert upright(image) is image
    exif = Image.Exif()
    exif[ORIENTATION] = 99
    image.info["exif"] = exif.tobytes()
    assert np.array_equal(upright(image), PIXELS)


def test_a_broken_exif_block_does_not_cost_the_image(tmp_path):
    pixels = np.repeat(PIXELS[:1, :1], 16, axis=0).repeat(24, axis=1)
    for number, block in enumerate((b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*" + b"\xff" * 40)):
        path = tmp_path / f"{number}.jpg"
        Image.fromarray(pixels).save(path, exif=block)
        assert read_image(path, 3).size == (24, 16)
