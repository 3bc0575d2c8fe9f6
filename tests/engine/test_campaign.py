"""Trainings killed at any moment end as those that were never stopped: weights, states, metrics and files.

Each of images and points, in one and in two processes, is killed a few times; POINTMIX_KILLS=20 does it 20 times each.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

from pointmix.data.clouds.config import PointDataConfig
from pointmix.engine import states
from pointmix.engine.train import train
from pointmix.tasks.classify_points import ClassifyPointsConfig, SmoothConfig
from pointmix.tasks.config import ModelConfig, OptimConfig
from tests.engine.trees import assert_equal

KILLS = int(os.environ.get("POINTMIX_KILLS", "3"))
MLP = dict(dim=8, expansion=[2, 2], pre_blocks=[1, 1], pos_blocks=[1, 1], neighbors=4)


def assert_same_end(one, two):
    """Weights, averages, optimizer, random states, losses, metrics; the two files of weights byte for byte."""
    one, two = Path(one.output_dir), Path(two.output_dir)
    (a, saved), (b, _) = (states.load_state(out / states.FOLDER) for out in (one, two))
    assert_equal(a, b)
    assert_equal(*(json.loads((out / "metrics.json").read_text()) for out in (one, two)))
    for name in ("model.safetensors", f"{states.FOLDER}/{saved.best}"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert not list(two.rglob(".*")) and len(list((two / states.FOLDER).iterdir())) <= 4


@pytest.fixture
def config(tiny_config, tmp_path):
    def make(kind, ranks):
        usual = dict(batch_size=16 // ranks, epochs=2, save_every_steps=3, output_dir=str(tmp_path / "straight"))
        if kind == "images":
            return tiny_config(**usual)
        rng = np.random.default_rng(0)
        (tmp_path / "main_split_nobg").mkdir()
        for split, count in (("training", 80), ("test", 20)):
            with h5py.File(tmp_path / "main_split_nobg" / f"{split}_objectdataset.h5", "w") as file:
                data = rng.normal(size=(count, 40, 3)).astype(np.float32)
                file.update({"data": data, "label": np.arange(count) % 3})
        data = dict(source="scanobjectnn", variant="obj_only", root=str(tmp_path), points=32, rotate=180.0)
        return ClassifyPointsConfig(
            data=PointDataConfig(**data, dropout_ratio=0.3, jitter=0.01, sampling="random"),
            model=ModelConfig("pointmlp", MLP),
            optim=OptimConfig(lr=0.01, lr_base_batch=16, warmup_epochs=0, ema_decay=0.9),
            mix=SmoothConfig(0.1),
            log_every=1,
            **usual,
        )

    return make


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("kind", ["images", "points"])
def test_killed_at_any_moment(config, forks, tmp_path, kind, ranks):
    """Every kind of event has its turn: in the middle of a write, before it is synced, renamed, what is old removed."""
    straight, rng, killed, folder = config(kind, ranks), random.Random(f"{kind} {ranks} {KILLS}"), Counter(), 0
    done = forks.run(straight, ranks=ranks)
    assert done["codes"] == [0] * ranks, done["out"]
    counts = Counter(done["events"])
    assert {"write state", "write best", "write model", "write metrics", "replace state", "unlink state"} <= set(counts)
    kinds = sorted([*counts, "seconds"])
    rng.shuffle(kinds)
    while sum(killed.values()) < KILLS:
        folder += 1
        cfg, code = dataclasses.replace(straight, output_dir=str(tmp_path / str(folder))), -9
        while code == -9:
            kill = None
            if sum(killed.values()) < KILLS:
                event = kinds[0]
                if event == "seconds":
                    kill = {"seconds": rng.uniform(0.1, 3)}
                else:
                    rank = rng.randrange(ranks) if event == "step" else 0
                    kill = {"event": event, "count": rng.randint(1, -(-counts[event] // 2)), "rank": rank}
            ended = forks.run(cfg, ranks=ranks, kill=kill)
            code = min(ended["codes"])
            if code == -9:
                assert kill is not None, ended["out"]
                killed[event] += 1
                kinds.append(kinds.pop(0))  # else it stays the next: what is past in this run comes in another
        assert ended["codes"] == [0] * ranks, ended["out"]
        assert_same_end(straight, cfg)
    print(f"{kind}, {ranks} processes, {folder} runs killed at", dict(killed))


@pytest.mark.usefixtures("no_pictures")
def test_a_flipped_bit_is_never_trained_on(tiny_config, tmp_path):
    """Anywhere in the newest state and its best weights: the run goes on from the state before, to the same end."""
    straight = tiny_config(epochs=2)
    train(straight)
    cfg = dataclasses.replace(straight, output_dir=str(tmp_path / "flipped"), save_every_steps=2)
    train(dataclasses.replace(cfg, max_steps=9))
    folder, rng = Path(cfg.output_dir, states.FOLDER), random.Random(0)
    newest, (_, saved) = states.list_states(folder)[0], states.load_state(folder)
    for path in (newest, folder / saved.best):
        whole = path.read_bytes()
        apart = 100 if "POINTMIX_KILLS" in os.environ else 5000
        for bit in range(rng.randrange(apart), 8 * len(whole), apart):
            with open(path, "r+b", buffering=0) as file:
                os.pwrite(file.fileno(), bytes([whole[bit // 8] ^ 1 << bit % 8]), bit // 8)
                with pytest.raises(ValueError, match="is damaged"):
                    states.check_file(path)
                os.pwrite(file.fileno(), whole[bit // 8 : bit // 8 + 1], bit // 8)
    data = bytearray(newest.read_bytes())
    data[rng.randrange(len(data))] ^= 16
    newest.write_bytes(data)
    with pytest.warns(
        UserWarning, match=f"{newest.name} is damaged.*: resuming from the previous state, state"
    ) as told:
        train(cfg)
    assert len([w for w in told if "damaged" in str(w.message)]) == 1
    assert_same_end(straight, cfg)
    for path in states.list_states(folder):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="no state in .* is intact: .*; give another --output_dir, or --restart true"):
        train(cfg)
