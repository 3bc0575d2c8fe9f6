"""Masks drawn and read, and the batches and points that come of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

import pointmix
from pointmix.data.dataset import seed_all
from pointmix.data.images.config import DataConfig
from pointmix.data.images.mask_files import put_mask
from pointmix.data.images.normalize import ByteImage, hide, join_bytes, to_bytes
from pointmix.data.images.partial import MaskedTransform, partial_points, random_mask
from pointmix.data.images.resolve import resolve
from pointmix.data.images.sources import digits
from pointmix.data.images.splits import build_data, build_test
from pointmix.data.images.transforms import eval_transform, train_transform
from pointmix.engine import finish, states
from pointmix.engine.train import train
from pointmix.io import read_mask
from pointmix.io.errors import BadMask, UnreadableSample
from pointmix.tasks.classify_images import ClassifyImagesConfig, MixConfig
from pointmix.tasks.config import ModelConfig, OptimConfig
from tests.engine.few_digits import few_digits

CALL = dict(batch_size=8, eval_batch_size=16, seed=0)
PLAIN = {"source": "folder", "crop_pct": 1.0, "img_size": 16, "color_jitter": 0.0, "mean": (0.0,), "std": (1.0,)}


def mask(size, keep, kind, seed=0, patch=4):
    torch.manual_seed(seed)
    return random_mask(size, keep_ratio=keep if isinstance(keep, tuple) else (keep, keep), kind=kind, patch=patch)


# ---- random masks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.75, 1.0])
def test_pixels_and_patches_keep_their_share(keep):
    for seed in range(5):
        assert mask((12, 20), keep, "pixels", seed).sum() == round(keep * 240)
        patches = mask((12, 20), keep, "patches", seed)
        cells = patches.view(3, 4, 5, 4).permute(0, 2, 1, 3).flatten(2)  # (3, 5, 16)
        assert (cells.all(2) | ~cells.any(2)).all() and cells.all(2).sum() == max(1, round(keep * 15))


def test_patches_are_cut_at_the_border():
    patches = mask((7, 10), 0.5, "patches")
    assert patches.shape == (7, 10)
    assert all(part.all() or not part.any() for rows in patches.split(4) for part in rows.split(4, dim=1))


@pytest.mark.parametrize("size", [(16, 16), (5, 40), (33, 2)])
@pytest.mark.parametrize("keep", [0.02, 0.25, 0.5, 0.9])
def test_a_block_is_a_rectangle_of_the_hidden_share(size, keep):
    for seed in range(8):
        hidden = ~mask(size, keep, "block", seed)
        rows, cols = hidden.any(1).sum(), hidden.any(0).sum()
        assert hidden.sum() == rows * cols and not hidden.all()
        assert abs(hidden.float().mean() - (1 - keep)) < max(size) / (size[0] * size[1]) + 1e-6


def test_at_least_one_pixel_stays():
    for kind in ("pixels", "patches", "block"):
        for size in ((1, 1), (1, 7), (9, 1), (3, 3)):
            for seed in range(5):
                assert mask(size, 1e-4, kind, seed).any()
    assert mask((8, 8), 1.0, "block").all()


def test_a_smaller_share_is_part_of_a_larger_one():
    for kind in ("pixels", "patches"):
        masks = [mask((16, 16), keep, kind, seed=3) for keep in (0.1, 0.25, 0.5, 0.75)]
        assert all((small & ~large).sum() == 0 for small, large in zip(masks[:-1], masks[1:], strict=True))


def test_a_range_is_drawn_from_evenly_and_any_is_each_kind():
    shares = torch.stack([mask((16, 16), (0.2, 0.6), "pixels", seed).float().mean() for seed in range(400)])
    assert shares.min() >= 0.19 and shares.max() <= 0.61
    assert abs(shares.mean() - 0.4) < 0.02 and abs(shares.std() - 0.4 / 12**0.5) < 0.01
    seen = {"patches": 0, "block": 0, "pixels": 0}
    for seed in range(90):
        drawn = mask((16, 16), 0.5, "any", seed)
        cells = drawn.view(4, 4, 4, 4).permute(0, 2, 1, 3).flatten(2)
        hidden = ~drawn
        if hidden.sum() == hidden.any(1).sum() * hidden.any(0).sum():
            seen["block"] += 1
        else:
            seen["patches" if (cells.all(2) | ~cells.any(2)).all() else "pixels"] += 1
    assert min(seen.values()) > 15


# ---- batches to points --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["inclusive", "exclusive"])
def test_points_are_those_of_from_images(mode):
    images = torch.randn(3, 2, 5, 7)
    masks = [mask((5, 7), 0.4, "pixels", seed) for seed in range(3)]
    ours = partial_points(torch.stack([hide(*pair) for pair in zip(images, masks, strict=True)]), coord_mode=mode)
    theirs = pointmix.PointSet.from_images(list(images), masks, coord_mode=mode)
    for name in ("pos", "feat", "ptr"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert torch.equal(ours.layout.cell, theirs.layout.cell) and torch.equal(ours.layout.size, theirs.layout.size)


def test_mixed_images_keep_the_values_of_those_that_show_a_pixel():
    a, b = torch.randn(2, 3, 4, 4)
    left, top = torch.zeros(2, 4, 4, dtype=torch.bool)
    left[:, :2], top[:2] = True, True
    mixed = 0.3 * hide(a, left) + 0.7 * hide(b, top)
    seen = partial_points(mixed[None]).to_image(fill=float("nan"))[0]
    expected = torch.full((3, 4, 4), float("nan"))
    expected[:, :2, :2] = 0.3 * a[:, :2, :2] + 0.7 * b[:, :2, :2]
    expected[:, 2:, :2], expected[:, :2, 2:] = a[:, 2:, :2], b[:, :2, 2:]
    assert torch.allclose(seen, expected, equal_nan=True, atol=1e-6)


def test_an_image_left_without_a_pixel_gets_a_gray_one():
    points = partial_points(torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)]))
    assert points.ptr.tolist() == [0, 1, 17] and points.layout.cell[0].tolist() == [2, 2]
    assert torch.equal(points.feat[0], torch.zeros(2)) and torch.isfinite(points.feat).all()


# ---- mask files ---------------------------------------------------------------------------------------------------


def photo(visible, channels=3):
    """White where visible, black noise elsewhere."""
    noise = np.random.default_rng(0).integers(0, 60, (*visible.shape, channels), dtype=np.uint8)
    noise[visible.numpy()] = 255
    return Image.fromarray(noise if channels == 3 else noise[..., 0])


def floats(image: ByteImage) -> torch.Tensor:
    """The image with its mask as the last channel, values in [0, 1]."""
    channels = len(image.pixels)
    return join_bytes([image], mean=(0.0,) * channels, std=(1.0,) * channels).to("cpu")[0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("settings", [{}, {"pad_crop": 3}, {"color_jitter": 0.4, "reprob": 0.5, "vflip": 0.5}])
def test_training_moves_image_and_mask_alike(channels, settings):
    visible = torch.zeros(40, 30, dtype=torch.bool)
    visible[5:25, 3:14] = True
    cfg = resolve(DataConfig(**{**PLAIN, **settings, "in_chans": channels, "auto_augment": None}))
    transform = MaskedTransform(train_transform(cfg).transforms, side=16)
    image, shapes = put_mask(photo(visible, channels), visible), set()
    for i in range(30):
        seed_all(i)
        out = floats(transform(image))
        assert out.shape == (channels + 1, 16, 16) and out.dtype == torch.float32
        kept = out[-1] == 1
        assert (out[:, ~kept] == 0).all() and kept.any()
        if not settings.get("reprob"):
            assert (out[:-1, kept] > 0.98).all()  # nothing of the dark rest has come in
        shapes.add(kept.numpy().tobytes())
    assert len(shapes) > 10


def test_evaluation_moves_image_and_mask_alike():
    visible = torch.zeros(40, 30, dtype=torch.bool)
    visible[12:30, 10:30] = True
    transform = MaskedTransform(eval_transform(resolve(DataConfig(**PLAIN))).transforms, side=None)
    out = floats(transform(put_mask(photo(visible), visible)))
    kept = out[-1] == 1
    assert (out[:3, kept] > 0.98).all() and abs(kept.float().mean() - 18 * 20 / 900) < 0.08
    whole = eval_transform(resolve(DataConfig(**PLAIN)))(photo(visible))
    everything = transform(put_mask(photo(visible), torch.ones_like(visible)))
    assert torch.equal(everything.pixels, whole.pixels) and everything.mask.all() and whole.mask is None


def test_a_crop_without_a_visible_pixel():
    visible = torch.zeros(100, 100, dtype=torch.bool)
    visible[0, 0] = True
    steps = [transforms.CenterCrop(20), to_bytes]
    assert MaskedTransform(steps, side=20)(put_mask(photo(visible), visible)).mask.sum() == 1  # squeezed instead
    with pytest.raises(UnreadableSample, match="no visible pixel is left in the central 20x20 crop"):
        MaskedTransform(steps, side=None)(put_mask(photo(visible), visible))


@pytest.fixture
def masked_folder(tmp_path):
    """8 + 6 training and 4 + 3 test images, white on a random half that their masks show; two have no mask."""
    rng = np.random.default_rng(0)
    for split, counts in {"train": {"cat": 8, "dog": 6}, "test": {"cat": 4, "dog": 3}}.items():
        for name, count in counts.items():
            (tmp_path / "images" / split / name).mkdir(parents=True)
            (tmp_path / "masks" / split / name).mkdir(parents=True)
            for i in range(count):
                visible = torch.from_numpy(rng.random((20, 24)) < 0.5)
                photo(visible).save(tmp_path / "images" / split / name / f"{i}.tif")
                if i:
                    Image.fromarray(visible.numpy().astype(np.uint8)).save(
                        tmp_path / "masks" / split / name / f"{i}.png"
                    )
    return tmp_path


def config(folder, **settings):
    return DataConfig(**{**PLAIN, "val_fraction": 0.0, "mask_root": str(folder / "masks"), **settings},
                      root=str(folder / "images"))  # fmt: skip


@pytest.mark.parametrize("cache", [False, True])
def test_a_folder_with_masks(masked_folder, cache):
    splits = build_data(config(masked_folder, cache=cache), **CALL)
    images, targets = next(iter(splits.test))
    images = images.to("cpu")
    assert images.shape == (7, 4, 16, 16) and targets.tolist() == [0] * 4 + [1] * 3
    assert (images[[0, 4], 3] == 1).all()  # without a mask
    for image in images[[1, 2, 3, 5, 6]]:
        assert 0.3 < image[3].mean() < 0.7 and (image[:3, image[3] == 1] > 0.9).all()
    points = splits.partial(images)
    assert points.num_sets == 7 and points.feat.shape == (int(images[:, 3].sum()), 3)
    assert next(iter(splits.train))[0].to("cpu").shape == (8, 4, 16, 16)


@pytest.mark.parametrize("cache", [False, True])
def test_masks_of_gray_images(masked_folder, cache):
    images, _ = next(iter(build_data(config(masked_folder, in_chans=1, cache=cache), **CALL).test))
    images = images.to("cpu")
    assert images.shape == (7, 2, 16, 16) and 0.3 < images[1, 1].mean() < 0.7


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("cache", [False, True])
def test_bad_mask_files_stop_the_run_and_are_named(masked_folder, workers, cache):
    file = masked_folder / "masks" / "test" / "cat" / "2.png"
    zero = np.zeros((20, 24), dtype=np.uint8)
    for content, message in ((zero, "2.png: mask hides every pixel"), (zero[:9], "2.png: mask is 9x24, the image")):
        Image.fromarray(content).save(file)
        with pytest.raises(BadMask, match=message) as caught:
            list(build_test(config(masked_folder, workers=workers, cache=cache), batch_size=4)[0])
        assert "\n" not in str(caught.value)


def test_missing_masks(masked_folder):
    with pytest.raises(FileNotFoundError, match=r"2 of 14 images have no mask; no file .*cat/0.png \(data.strict"):
        build_data(config(masked_folder, strict=True), **CALL)
    with pytest.raises(FileNotFoundError, match="14 of 14 images have no mask"):
        build_data(config(masked_folder, mask_root=str(masked_folder)), **CALL)
    with pytest.raises(FileNotFoundError, match="data.mask_root: no folder nowhere"):
        build_data(config(masked_folder, mask_root="nowhere"), **CALL)
    with pytest.raises(ValueError, match="data.mask_root needs images that are files below data.root"):
        build_data(DataConfig(mask_root=str(masked_folder / "masks")), **CALL)


def test_masks_of_many_modes(tmp_path):
    visible = np.zeros((4, 5), dtype=np.uint8)
    visible[1:3, 2:] = 1
    image = Image.fromarray(visible)
    color = np.zeros((4, 5, 4), dtype=np.uint8)
    color[..., 2], color[..., 3] = visible, 255
    palette = image.convert("P")
    kinds = [image, image.convert("I;16"), Image.fromarray(visible > 0), Image.fromarray(color), palette]
    for i, kind in enumerate(kinds):
        kind.save(tmp_path / f"{i}.png")
        assert torch.equal(read_mask(tmp_path / f"{i}.png", (4, 5)), torch.from_numpy(visible > 0)), kind.mode


def test_bad_masks(tmp_path):
    Image.fromarray(np.zeros((4, 5), dtype=np.uint8)).save(tmp_path / "zero.png")
    Image.fromarray(np.full((4, 5), np.nan, dtype=np.float32)).save(tmp_path / "nan.tiff")
    (tmp_path / "text.png").write_text("no image")
    for name, size, message in (
        ("zero.png", (4, 5), r"zero.png: mask hides every pixel"),
        ("zero.png", (5, 4), r"zero.png: mask is 4x5, the image is 5x4"),
        ("nan.tiff", (4, 5), r"nan.tiff: mask holds NaN"),
        ("text.png", (4, 5), r"cannot read mask .*text.png"),
    ):
        with pytest.raises(ValueError, match=message):
            read_mask(tmp_path / name, size)
    with pytest.raises(FileNotFoundError, match="no mask file"):
        read_mask(tmp_path / "none.png", (4, 5))


# ---- training -----------------------------------------------------------------------------------------------------

TINY = dict(
    stem=[3, 2, 1], depths=[1, 1], dims=[16, 24], mlp_ratios=[2, 2], heads=2, head_dim=8,
    windows_per_side=[2, 1], centers_per_side=[2, 2],
    layer_scale=1.0,
)  # fmt: skip


def run(tmp_path: Path, name: str, **settings) -> ClassifyImagesConfig:
    cfg = ClassifyImagesConfig(
        data=DataConfig(limit=64, keep_ratio=(0.1, 1.0), mask="any", mask_patch=2),
        model=ModelConfig(name="coc_tiny", kwargs=TINY),
        optim=OptimConfig(lr_base_batch=16, warmup_epochs=1, sched_on_updates=True),
        mix=MixConfig(mixup=0.4, cutmix=1.0),
        output_dir=str(tmp_path / name),
        epochs=2,
        batch_size=16,
    )
    return dataclasses.replace(cfg, **settings)


def test_a_run_on_partial_images_goes_on_exactly_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(finish, "_draw", lambda picture, path: None)
    monkeypatch.setattr(digits, "open_digits", few_digits)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        straight = train(run(tmp_path, "straight"))
        train(run(tmp_path, "stopped", max_steps=3))
        resumed = train(run(tmp_path, "stopped"))
    finally:
        torch.set_num_threads(before)
    last = [metrics["history"][-1] for metrics in (straight, resumed)]
    assert last[0]["val"] == last[1]["val"] and last[0]["train_loss"] == last[1]["train_loss"]
    one, two = (states.load_state(tmp_path / name / states.FOLDER)[0]["model"] for name in ("straight", "stopped"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_other_networks_are_refused(tmp_path):
    cfg = run(tmp_path, "timm", model=ModelConfig(name="test_vit"), data=DataConfig(img_size=160, keep_ratio=0.5))
    with pytest.raises(ValueError, match="test_vit does not take images with hidden pixels") as caught:
        train(cfg)
    assert "\n" not in str(caught.value)
