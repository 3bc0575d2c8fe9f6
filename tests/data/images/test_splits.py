from __future__ import annotations

import dataclasses
import inspect
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from PIL import Image

from pointmix.data.images.config import DataConfig, is_partial, keep_range
from pointmix.data.images.resolve import resolve
from pointmix.data.images.splits import build_data, build_test
from pointmix.data.splits import stratified_split

CALL = {"batch_size": 8, "eval_batch_size": 16, "seed": 0}


def floats(loader) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches as a network on the CPU takes them."""
    return [(images.to("cpu"), targets) for images, targets in loader]


def config(root: Path, **kwargs) -> DataConfig:
    return DataConfig(source="folder", root=str(root), **{"img_size": 16, "val_fraction": 0, **kwargs})


def test_digits_are_the_default():
    splits = build_data(DataConfig(), batch_size=32, eval_batch_size=100, seed=0)
    images, targets = floats(splits.train)[0]
    assert images.shape == (32, 1, 8, 8) and images.dtype == torch.float32
    assert targets.shape == (32,) and targets.dtype == torch.int64
    sizes = [sum(len(t) for _, t in loader) for loader in (splits.val, splits.test)]
    assert sizes == [120, 599] and len(splits.train.dataset) == 1198 - 120
    assert splits.classes == [str(d) for d in range(10)]
    assert splits.steps_per_epoch == 33
    assert (splits.in_chans, splits.img_size, splits.mean) == (1, 8, (0.305,))
    assert splits.skipped() == []


def test_test_images_are_normalized_digits():
    splits = build_data(DataConfig(), **CALL)
    images = torch.cat([images for images, _ in floats(splits.test)])
    assert abs(images.mean()) < 0.02 and abs(images.std() - 1) < 0.02


@pytest.mark.parametrize("size", [(16, 16), (30, 20), (9, 40)])
def test_a_folder_of_any_image_size(tmp_path, size, folder):
    rng = np.random.default_rng(1)
    for path in folder.rglob("*.jpg"):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    for kwargs in ({}, {"pad_crop": 2}, {"crop_pct": 1.0, "auto_augment": "rand-m9-mstd0.5-inc1"}):
        splits = build_data(config(folder, **kwargs), **CALL)
        for loader in (splits.train, splits.test):
            for images, _ in floats(loader):
                assert images.shape[1:] == (3, 16, 16) and torch.isfinite(images).all()
    assert splits.classes == ["cat", "dog"] and splits.val is None
    assert torch.cat([targets for _, targets in splits.test]).tolist() == [0] * 4 + [1] * 3


@pytest.mark.parametrize("in_chans", [1, 3])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "CMYK", "1", "I;16"])
def test_files_of_any_mode_are_converted(folder, mode, in_chans):
    gray = np.full((16, 16), 128, dtype=np.uint8)
    image = Image.fromarray(gray.astype(np.uint16) * 256) if mode == "I;16" else Image.fromarray(gray).convert(mode)
    for path in folder.rglob("*.jpg"):
        path.unlink()
        image.save(path.with_suffix(".tif"))
    settings = {"crop_pct": 1.0, "in_chans": in_chans, "mean": (0.0,), "std": (1.0,)}
    splits = build_data(config(folder, **settings, auto_augment="rand-m9-mstd0.5-inc1"), **CALL)
    images, _ = floats(splits.test)[0]
    assert images.shape == (7, in_chans, 16, 16)
    if mode != "1":  # dithered
        assert (images - 128 / 255).abs().max() < 0.02
    assert floats(splits.train)[0][0].shape == (8, in_chans, 16, 16)


@pytest.mark.parametrize("kind", ["tiff", "webp", "gif", "png"])
def test_of_several_images_in_a_file_the_first_is_taken(folder, kind):
    first, *more = (Image.fromarray(np.full((16, 16, 3), value, dtype=np.uint8)) for value in (50, 150, 250))
    for path in folder.rglob("*.jpg"):
        path.unlink()
        options = {"lossless": True} if kind == "webp" else {}
        first.save(path.with_suffix(".tif"), kind, save_all=True, append_images=more, **options)  # content decides
    images, _ = floats(build_data(config(folder, crop_pct=1.0, mean=(0.0,), std=(1.0,)), **CALL).test)[0]
    assert torch.allclose(images, torch.tensor(50 / 255))


def test_pad_crop_only_shifts(folder):
    splits = build_data(config(folder, pad_crop=2, hflip=0, color_jitter=0, crop_pct=1.0), **CALL)
    dataset = splits.train.dataset
    image = splits.test.dataset.transform(Image.open(dataset.source.name(7))).pixels
    whole = torch.nn.functional.pad(image, (2, 2, 2, 2))
    shifts = [whole[:, i : i + 16, j : j + 16] for i in range(5) for j in range(5)]
    drawn = [dataset[(epoch, 7)][0][0].pixels for epoch in range(20)]
    seen = {next(k for k, s in enumerate(shifts) if torch.equal(s, image)) for image in drawn}
    assert len(seen) > 5


def test_held_back_images_are_stratified_seeded_and_disjoint():
    targets = np.repeat([0, 1, 2, 3], [100, 50, 3, 1])
    kept, held = stratified_split(targets, fraction=0.1, seed=0)
    assert np.bincount(targets[held], minlength=4).tolist() == [10, 5, 1, 0]
    assert sorted(np.concatenate([kept, held])) == list(range(len(targets)))
    assert np.array_equal(held, stratified_split(targets, fraction=0.1, seed=0)[1])
    assert not np.array_equal(held, stratified_split(targets, fraction=0.1, seed=1)[1])
    assert len(stratified_split(targets, fraction=0.0, seed=0)[1]) == 0


def test_the_runs_seed_does_not_move_the_validation_images(folder):
    held = [build_data(config(folder, val_fraction=0.2), **CALL | {"seed": s}).val.dataset.indices for s in (0, 1)]
    assert np.array_equal(*held) and len(held[0]) == 6


def test_limit_and_val_split(folder):
    splits = build_data(config(folder, limit=10, val_split="val", cache=True), **CALL)
    assert splits.steps_per_epoch == 1 and len(splits.train.dataset) == 10
    assert sum(len(targets) for _, targets in splits.val) == 7


def test_the_test_split_alone_needs_no_train(folder):
    whole = build_data(config(folder), **CALL)
    shutil.rmtree(folder / "train")
    test, classes = build_test(config(folder), batch_size=16)
    assert classes == whole.classes
    for ours, theirs in zip(floats(test)[0], floats(whole.test)[0], strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(ValueError, match="batch size 0"):
        build_test(config(folder), batch_size=0)


def test_ranks_evaluate_disjoint_parts(folder):
    parts = [build_data(config(folder), **CALL, rank=r, world_size=2).test for r in range(2)]
    images = [torch.cat([images for images, _ in floats(part)]) for part in parts]
    whole = torch.cat([images for images, _ in floats(build_data(config(folder), **CALL).test)])
    assert torch.equal(images[0], whole[0::2]) and torch.equal(images[1], whole[1::2])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"root": "DIR"}, "data.root DIR: data.source is digits"),
        ({"in_chans": 2}, "data.in_chans 2: expected 1"),
        ({"mean": (0.1, 0.2)}, "data.mean has 2 values for 1 channels"),
        ({"std": (0.0,)}, "data.std must be above 0"),
        ({"val_fraction": 1.0}, "data.val_fraction must be at least 0 and below 1, got 1.0"),
        ({"crop_pct": 0.0}, "data.crop_pct must be above 0 and at most 1, got 0.0"),
        ({"hflip": 2.0}, "data.hflip must be from 0 to 1, got 2.0"),
        ({"workers": -1}, "data.workers must be at least 0, got -1"),
        ({"limit": 0}, "data.limit must be at least 1, got 0"),
        ({"interpolation": "cubist"}, "data.interpolation 'cubist': expected one of"),
        ({"remode": "holes"}, "data.remode 'holes': expected one of"),
        ({"auto_augment": "randy-m9"}, "data.auto_augment 'randy-m9'"),
        ({"scale": (1.0, 0.5)}, "data.scale"),
        ({"keep_ratio": 0.0}, "data.keep_ratio must be above 0 and at most 1, got 0.0"),
        ({"keep_ratio": (0.5, 0.1)}, r"data.keep_ratio \(0.5, 0.1\)"),
        ({"keep_ratio": (0.5, 1.1)}, "data.keep_ratio"),
        ({"mask": "holes"}, "data.mask 'holes': expected one of patches, block"),
        ({"mask_patch": 0}, "data.mask_patch must be at least 1, got 0"),
        (
            {"mask_root": "DIR", "keep_ratio": 0.5},
            "data.keep_ratio 0.5 with data.mask_root DIR: expected one of the two",
        ),
        ({"mask_root": "DIR", "auto_augment": "rand-m9"}, "data.auto_augment 'rand-m9' moves pixels"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        build_data(DataConfig(**settings), **CALL)
    assert "\n" not in str(caught.value)


def test_defaults_follow_source_and_channels():
    gray = resolve(DataConfig(source="folder", root="x", in_chans=1))
    assert gray.img_size == 224 and len(gray.mean) == 1 and abs(gray.mean[0] - 0.449) < 1e-3
    assert resolve(DataConfig(in_chans=3)).mean == (0.305,) * 3
    assert resolve(resolve(DataConfig())) == resolve(DataConfig())


def test_every_setting_has_its_line_in_help_and_can_be_given(tmp_path):
    parser = ArgumentParser()
    parser.add_argument("--data", type=DataConfig, default=DataConfig())
    parsed = parser.parse_args(["--data.source=folder", "--data.mean=[0.1,0.2,0.3]", "--data.limit=5"])
    data = parser.instantiate(parsed).data
    assert data.mean == (0.1, 0.2, 0.3) and data.limit == 5
    documented = set(re.findall(r"^    +(\w+): ", inspect.getdoc(DataConfig), flags=re.M))
    assert documented >= {field.name for field in dataclasses.fields(DataConfig)}


def test_shares_may_be_one_number_or_two():
    parser = ArgumentParser()
    parser.add_argument("--data", type=DataConfig, default=DataConfig())
    for given, expected in (("0.5", 0.5), ("[0.1,1.0]", (0.1, 1.0))):
        data = parser.instantiate(parser.parse_args([f"--data.keep_ratio={given}"])).data
        assert data.keep_ratio == expected and resolve(data).keep_ratio == expected


def partial(folder, **settings):
    return build_data(config(folder, keep_ratio=(0.1, 0.9), mask="any", crop_pct=1.0, **settings), **CALL)


def test_hidden_pixels_are_zero_and_the_mask_is_a_channel_more(folder):
    whole = floats(build_data(config(folder, crop_pct=1.0), **CALL).test)[0][0]
    splits = partial(folder)
    images, targets = floats(splits.test)[0]
    assert images.shape == (7, 4, 16, 16) and splits.in_chans == 3
    assert torch.equal(images[:, :3], whole * images[:, 3:])
    assert 0 < images[:, 3].mean() < 1 and images[:, 3].flatten(1).any(1).all()
    points = splits.partial(images)
    assert points.num_sets == 7 and len(points.feat) == images[:, 3].sum()
    plain = build_data(config(folder), **CALL)
    assert plain.partial(whole) is whole


def test_a_test_image_has_the_same_mask_whatever_the_batch_the_process_and_the_run(folder):
    torch.manual_seed(5)
    once = torch.cat([images for images, _ in floats(partial(folder).test)])
    for cfg in (config(folder, keep_ratio=(0.1, 0.9), mask="any", crop_pct=1.0, workers=1),):
        torch.manual_seed(6)
        for settings in ({"eval_batch_size": 2}, {"eval_batch_size": 3, "seed": 9}):
            again = torch.cat([images for images, _ in floats(build_data(cfg, **CALL | settings).test)])
            assert torch.equal(once, again)
        parts = [build_data(cfg, **CALL, rank=r, world_size=2).test for r in range(2)]
        assert all(
            torch.equal(torch.cat([images for images, _ in floats(part)]), once[r::2]) for r, part in enumerate(parts)
        )
    assert len({image[3].numpy().tobytes() for image in once}) == 7


def test_training_masks_follow_from_seed_epoch_and_image(folder):
    def masks(seed, epoch, workers=0):
        splits = build_data(config(folder, keep_ratio=0.5, workers=workers), **CALL | {"seed": seed})
        splits.set_epoch(epoch)
        return torch.cat([images for images, _ in floats(splits.train)])

    assert torch.equal(masks(0, 1), masks(0, 1, workers=1))
    assert not torch.equal(masks(0, 1), masks(0, 2)) and not torch.equal(masks(0, 1), masks(1, 1))


def test_settings_read_back_from_json_are_the_same():
    for ratio in (1.0, (1.0, 1.0), (0.5, 1.0)):
        config = DataConfig(keep_ratio=ratio)
        back = DataConfig(**json.loads(json.dumps(dataclasses.asdict(config))))
        assert keep_range(back.keep_ratio) == keep_range(config.keep_ratio) and is_partial(back) == is_partial(
            config
        ) == (ratio == (0.5, 1.0))


def test_a_folder_with_train_val_and_test(folder, tmp_path):
    """val chooses the epoch and test is tested, unless val is to be tested, or test has no classes."""
    root = tmp_path / "data"
    shutil.copytree(folder, root)
    test = root / "test"
    shutil.copytree(root / "val", test)
    for image in (test / "cat").glob("*.*"):
        image.with_name("more_" + image.name).write_bytes(image.read_bytes())

    def names(**kwargs):
        splits = build_data(config(root, **{"val_fraction": None, **kwargs}), **CALL)
        return [Path(part.samples.source.name(0)).parts[-3] for part in (splits.val, splits.test)]

    assert names() == ["val", "test"]
    assert names(test_split="test") == ["val", "test"] and names(test_split="val") == ["train", "val"]
    assert names(val_fraction=0.2) == ["train", "test"]
    shutil.rmtree(test)
    test.mkdir()
    (test / "unlabeled.jpg").touch()
    assert names() == ["train", "val"]
