"""Files in, network inputs out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pointmix.data.images.config import DataConfig
from pointmix.data.images.resolve import resolve
from pointmix.io import read_image
from pointmix.tasks.base import get_task
from pointmix.tasks.classify_images import files
from pointmix.tasks.classify_images.files import masked_image, whole_image


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def config(**kwargs):
    return resolve(DataConfig(source="folder", **{"img_size": 32} | kwargs))


def test_a_mask_that_hides_nothing_changes_no_pixel(photo):
    image = read_image(photo, 3)
    points = masked_image(image, torch.ones(40, 60, dtype=torch.bool), config())
    assert torch.equal(points.to_image()[0], whole_image(image, config()))


def test_the_mask_goes_through_the_same_crop(photo):
    image = read_image(photo, 3)
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[:, 14:46] = True
    cfg = config(img_size=20, crop_pct=0.5)  # short side 40 -> 40: no resize, central 20x20
    points = masked_image(image, mask, cfg)
    assert len(points.feat) == 400
    mask[:, 30:] = False
    left = masked_image(image, mask, cfg)
    expected = whole_image(image, cfg)
    expected[:, :, 10:] = 0
    assert len(left.feat) == 200 and torch.equal(left.to_image()[0], expected)
    assert left.pos.min() == -0.5 and left.pos.max() == 0.5
    assert masked_image(image, mask, cfg, coord_mode="exclusive").pos.max() == pytest.approx(19 / 20 - 0.5)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("you can't allocate memory: 9 bytes")])
def test_a_size_that_does_not_fit_into_memory_is_named(photo, monkeypatch, error):
    monkeypatch.setattr(files, "join_bytes", lambda *_, **__: (_ for _ in ()).throw(error))
    image, mask = read_image(photo, 3), torch.ones(40, 60, dtype=torch.bool)
    for make in (lambda: whole_image(image, config()), lambda: masked_image(image, mask, config())):
        with pytest.raises(ValueError, match=r"an image of 32x32 \(data.img_size\) does not fit into memory"):
            make()


@pytest.mark.parametrize("size", [(1, 10_000_000), (10_000_000, 1)])
def test_strips_that_resizing_makes_large_are_refused(size):
    strip, mask = Image.new("RGB", size), torch.ones(size[::-1], dtype=torch.bool)
    for make in (lambda: whole_image(strip, config()), lambda: masked_image(strip, mask, config())):
        with pytest.raises(ValueError, match=f"of {size[0]} x {size[1]}, 35 on its short side, has 12250000000 pixels"):
            make()
    assert whole_image(Image.new("RGB", (1, 60_000)), config()).shape == (3, 32, 32)


def test_hidden_pixels_do_not_leak_through_resizing(photo):
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[8:30, 20:45] = True
    pixels = np.asarray(read_image(photo, 3)).copy()
    one = masked_image(Image.fromarray(pixels), mask, config())
    pixels[~mask.numpy()] = 255
    two = masked_image(Image.fromarray(pixels), mask, config())
    assert 0 < len(one.feat) < 32 * 32
    assert torch.equal(one.feat, two.feat)


def test_a_mask_outside_the_crop(photo):
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[:, 0] = True
    with pytest.raises(ValueError, match="no visible pixel is left in the central 32x32 crop"):
        masked_image(read_image(photo, 3), mask, config())


def test_bad_images(tmp_path, photo):
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:300])
    Image.fromarray(np.full((4, 5), np.nan, dtype=np.float32)).save(tmp_path / "nan.tiff")
    with pytest.raises(ValueError, match="cannot read image .*cut.png"):
        read_image(tmp_path / "cut.png", 3)
    with pytest.raises(ValueError, match="nan.tiff: holds NaN"):
        read_image(tmp_path / "nan.tiff", 3)
    with pytest.raises(FileNotFoundError, match="no image file"):
        read_image(tmp_path / "none.png", 3)


def test_the_transform_of_a_trained_network(photo):
    size = {"img_size": 32, "in_chans": 3, "mean": [0.5], "std": [0.25]}
    transform = get_task("classify_images").transform(size | {"data": {"source": "folder"}})
    expected = whole_image(read_image(photo, 3), config(mean=(0.5,), std=(0.25,)))
    with Image.open(photo) as image:
        assert torch.equal(transform(image), expected) and torch.equal(transform(image.convert("RGBA")), expected)
        image.load()  # it is still open
