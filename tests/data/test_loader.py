from __future__ import annotations

import io
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from pointmix.data.images.config import DataConfig
from pointmix.data.images.loaders import ImageDataset
from pointmix.data.images.sources import folder as folder_module
from pointmix.data.images.splits import ImageSplits, build_data
from pointmix.io.errors import UnreadableSample

ROOT = Path(__file__).resolve().parents[2]


def build(root: Path, **kwargs) -> ImageSplits:
    settings = {"img_size": 16, "pad_crop": 2, "auto_augment": "rand-m9-mstd0.5-inc1", "reprob": 0.5, "val_fraction": 0}
    call = {"batch_size": 4, "eval_batch_size": 4, "seed": 0, "rank": 0, "world_size": 1}
    call |= {key: kwargs.pop(key) for key in list(kwargs) if key in call}
    return build_data(DataConfig(source="folder", root=str(root), **settings | kwargs), **call)


def floats(loader) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches as a network on the CPU takes them."""
    return [(images.to("cpu"), targets) for images, targets in loader]


def epoch_of(splits: ImageSplits, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    splits.set_epoch(epoch)
    return floats(splits.train)


def same(a: list, b: list) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)
    )


def test_batches_do_not_depend_on_workers_or_cache_or_what_ran_before(folder):
    here, caching, there = build(folder), build(folder, cache=True), build(folder, workers=2)
    first, second = epoch_of(here, 0), epoch_of(here, 1)
    assert not same(first, second)
    assert same(first, epoch_of(here, 0))
    assert same(second, epoch_of(caching, 1))
    assert same(first, epoch_of(there, 0)) and same(second, epoch_of(there, 1))  # the same, persistent workers
    assert not same(first, epoch_of(build(folder, seed=1), 0))


def test_each_image_has_random_numbers_of_its_own(folder):
    names = sorted((folder / "train/cat").glob("*.jpg"))
    for name in names[1:]:
        name.write_bytes(names[0].read_bytes())
    dataset = build(folder).train.dataset
    images = torch.stack([dataset[(0, i)][0][0].pixels for i in range(len(names))])
    assert len(images.flatten(1).unique(dim=0)) == len(names)


def test_two_processes_see_the_batches_of_one(folder):
    one = epoch_of(build(folder), 3)
    parts = [epoch_of(build(folder, batch_size=2, rank=r, world_size=2), 3) for r in range(2)]
    joined = [(torch.cat([a[0], b[0]]), torch.cat([a[1], b[1]])) for a, b in zip(*parts, strict=True)]
    assert same(one, joined)


@pytest.mark.parametrize("workers", [0, 1])
def test_random_states_of_the_caller_are_left_alone(folder, workers):
    splits = build(folder, workers=workers)
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    list(splits.train), list(splits.test)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


RESUME = """
import sys, torch
sys.path.insert(0, {tests!r})
from test_loader import build, epoch_of, floats
results = []
for workers, state in torch.load({states!r}, weights_only=True):
    splits = build({folder!r}, workers=workers)
    splits.set_epoch(state["epoch"])
    splits.train.load_state_dict(state)
    results.append([floats(splits.train), epoch_of(splits, state["epoch"] + 1)])
torch.save(results, {results!r})
"""


def test_a_fresh_process_goes_on_in_mid_epoch(folder, tmp_path):
    reference, cases, firsts = build(folder), [], []
    for workers, later in ((0, 0), (2, 2), (2, 0), (0, 1)):
        splits = build(folder, workers=workers)
        splits.set_epoch(2)
        firsts.append(floats(islice(splits.train, 3)))
        cases.append((later, splits.train.state_dict()))
    files = {"states": str(tmp_path / "states.pt"), "results": str(tmp_path / "results.pt")}
    torch.save(cases, files["states"])
    script = RESUME.format(tests=str(Path(__file__).parent), folder=str(folder), **files)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, env=env)
    results = torch.load(files["results"], weights_only=True)
    assert len(results) == 4
    for first, (rest, following) in zip(firsts, results, strict=True):
        assert same(first + rest, epoch_of(reference, 2))
        assert same(following, epoch_of(reference, 3))


def test_state_at_the_end_of_an_epoch_has_nothing_left(folder):
    splits, other = build(folder), build(folder)
    epoch_of(splits, 1)
    other.train.load_state_dict(splits.train.state_dict())
    assert other.train.state_dict() == splits.train.state_dict()
    assert list(other.train) == []
    assert same(epoch_of(other, 2), epoch_of(splits, 2))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("workers, cache", [(0, False), (2, False), (0, True)])
def test_damaged_images_are_left_out_and_named(folder, workers, cache):
    for path in ("val/cat/01.jpg", "train/dog/03.jpg"):
        truncate(folder / path)
    (folder / "val/dog/00.jpg").write_bytes(b"")
    splits = build(folder, workers=workers, cache=cache)
    targets = torch.cat([targets for _, targets in splits.test])
    assert targets.tolist() == [0, 0, 0, 1, 1]
    assert [len(targets) for _, targets in epoch_of(splits, 0)] == [4] * 7
    skipped = dict(splits.skipped())
    assert set(skipped) >= {str(folder / "val/cat/01.jpg"), str(folder / "val/dog/00.jpg")}
    assert "truncated" in skipped[str(folder / "val/cat/01.jpg")].lower()
    assert "not an image" in skipped[str(folder / "val/dog/00.jpg")]


def test_a_damaged_training_image_gives_way_to_the_next_readable_one(folder):
    names = sorted(path for path in (folder / "train").rglob("*.jpg"))
    truncate(names[3]), truncate(names[4])
    splits = build(folder, auto_augment=None, reprob=0.0, pad_crop=1, hflip=0.0)
    dataset = splits.train.dataset
    (_, target), failed = dataset[(0, 3)]
    assert [failure.file for failure in failed] == [str(names[3]), str(names[4])]
    whole = build(folder).train.dataset.source
    assert target == whole.targets[5]
    epochs = [epoch_of(splits, 0), epoch_of(build(folder, auto_augment=None, reprob=0.0, pad_crop=1, hflip=0.0), 0)]
    assert same(*epochs)


@pytest.mark.parametrize("workers", [0, 1])
def test_strict_refuses_a_damaged_image_in_one_line(folder, workers):
    truncate(folder / "val/cat/01.jpg")
    with pytest.raises(UnreadableSample, match=r"(?i)val/cat/01.jpg: .*truncated.*data.strict") as caught:
        list(build(folder, workers=workers, strict=True).test)
    assert "\n" not in str(caught.value)


def test_nothing_readable_is_an_error_not_a_hang(folder):
    for path in (folder / "train").rglob("*.jpg"):
        path.write_bytes(b"no image")
    with pytest.raises(UnreadableSample, match="all of 30 images in a row are damaged"):
        list(build(folder).train)


def test_state_is_plain_numbers(folder):
    splits = build(folder)
    file = io.BytesIO()
    torch.save(splits.train.state_dict(), file)
    file.seek(0)
    assert torch.load(file, weights_only=True) == {
        "samples": 30, "global_batch": 4, "seed": 0, "epoch": 0, "batch": 0
    }  # fmt: skip


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="the workers would not inherit the patch")
def test_a_worker_that_dies_names_the_file(folder, monkeypatch):
    """No exception comes from a worker whose decoder crashes, or that is killed for want of memory."""
    read = folder_module.open_image

    def crash(path):
        if path.endswith("cat/03.jpg"):
            os.kill(os.getpid(), signal.SIGKILL)
        return read(path)

    monkeypatch.setattr(folder_module, "open_image", crash)
    splits = build(folder, workers=2)
    with pytest.raises(ChildProcessError, match="that read .*cat/03.jpg was killed by SIGKILL") as caught:
        epoch_of(splits, 0)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="the workers would not inherit the patch")
def test_a_worker_that_dies_before_it_reads_names_no_file(folder, monkeypatch):
    def die(self, keys):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(ImageDataset, "__getitems__", die)
    with pytest.raises(ChildProcessError, match="that read nothing yet was killed by SIGKILL"):
        epoch_of(build(folder, workers=1), 0)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_that_fits_into_no_memory_is_named(folder, workers):
    loader = build(folder, workers=workers).train
    loader.dataset.transform = lambda _: np.empty(10**15)
    with pytest.raises(MemoryError, match="a batch of 4 images does not fit; make batch_size or .* smaller") as caught:
        next(iter(loader))
    assert "\n" not in str(caught.value)
