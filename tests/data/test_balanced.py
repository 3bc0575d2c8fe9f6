from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from pointmix.data.balanced import DRAW, BalancedBatches, balanced_draws, train_batches
from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.sources import shapes
from pointmix.data.clouds.splits import build_points
from pointmix.data.images.config import DataConfig
from pointmix.data.images.splits import build_data
from pointmix.data.sampler import EpochBatches

TARGETS = np.array([0] * 14 + [1] * 5 + [3] * 2)
CALL = {"batch_size": 4, "seed": 5}


@pytest.mark.parametrize("epoch", range(4))
def test_classes_and_samples_are_drawn_equally_often(epoch):
    samples, draws = balanced_draws(TARGETS, seed=1, epoch=epoch)
    assert len(samples) == len(draws) == len(TARGETS)
    assert Counter(TARGETS[samples].tolist()) == {0: 7, 1: 7, 3: 7}
    for label in (0, 1, 3):
        of_class = Counter(samples[TARGETS[samples] == label].tolist())
        counts = [of_class[i] for i in np.flatnonzero(TARGETS == label).tolist()]
        assert max(counts) - min(counts) <= 1
    assert len(set(zip(samples.tolist(), draws.tolist(), strict=True))) == len(TARGETS)
    assert sorted(draws[samples == samples[-1]].tolist()) == list(range((samples == samples[-1]).sum()))


def test_the_remainder_moves_and_all_is_seen_in_time():
    samples = [balanced_draws(TARGETS[:-1], seed=0, epoch=epoch)[0] for epoch in range(20)]
    more = {max(Counter(TARGETS[s].tolist()).items(), key=lambda item: item[1])[0] for s in samples}
    assert len(more) > 1 and set(np.concatenate(samples).tolist()) == set(range(20))
    assert any((samples[0] != other).any() for other in samples[1:])


def test_batches_follow_from_seed_epoch_and_place():
    def epoch_of(epoch, rank=0, world_size=1, **kwargs):
        batches = BalancedBatches(TARGETS, **(CALL | kwargs), rank=rank, world_size=world_size)
        batches.epoch = epoch
        return list(batches)

    whole = epoch_of(3)
    assert len(whole) == 5 and whole == epoch_of(3) != epoch_of(4) and epoch_of(3, seed=6) != whole
    halves = [epoch_of(3, rank, 2, batch_size=2) for rank in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole
    assert all(key % DRAW == 3 for batch in whole for key, _ in batch) and whole[0] != sorted(whole[0])
    resumed = BalancedBatches(TARGETS, **CALL)
    resumed.load_state_dict(EpochBatches(size=21, **CALL).state_dict() | {"epoch": 3, "batch": 2})
    assert list(resumed) == whole[2:]


def test_it_is_off_by_default():
    place = {"rank": 0, "world_size": 1}
    assert type(train_batches(TARGETS, balanced=False, **CALL, **place)) is EpochBatches
    assert not DataConfig().balanced and not PointDataConfig().balanced
    with pytest.raises(ValueError, match="21 training samples do not fill one batch of 30"):
        train_batches(TARGETS, balanced=True, batch_size=30, seed=0, **place)


def test_images_are_augmented_anew_each_time_that_they_are_drawn(folder):
    for path in sorted((folder / "train/dog").iterdir())[2:]:
        path.unlink()  # 20 cats, 2 dogs
    cfg = DataConfig(source="folder", root=str(folder), img_size=16, val_fraction=0.0, balanced=True)
    splits = build_data(cfg, batch_size=11, eval_batch_size=8, seed=0)
    batches = list(splits.train)
    targets = torch.cat([targets for _, targets in batches])
    assert torch.bincount(targets).tolist() == [11, 11]
    images = torch.cat([images.pixels for images, _ in batches])
    assert len(images.flatten(1).unique(dim=0)) == 22


def test_clouds(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "COUNTS", {"training": 200, "test": 50})
    cfg = PointDataConfig(root=str(tmp_path), points=16, limit=40, balanced=True, val_fraction=0.0)
    splits = build_points(cfg, batch_size=40, eval_batch_size=40, seed=0)
    _, targets = next(iter(splits.train))
    found = torch.bincount(targets)
    found = found[found > 0]
    assert found.max() - found.min() <= 1
