from __future__ import annotations

import dataclasses

import pytest
import torch
from PIL import Image

from pointmix.data.images.config import DataConfig
from pointmix.data.images.sources import digits
from pointmix.engine import finish
from pointmix.engine.seeds import train_all
from pointmix.tasks.classify_images import ClassifyImagesConfig, MixConfig
from pointmix.tasks.config import ModelConfig, OptimConfig
from tests.engine.few_digits import few_digits
from tests.engine.forks import Forks

# Two stages of one block: drop-path acts in the second.
TINY = dict(
    stem=[3, 2, 1], depths=[1, 1], dims=[16, 24], mlp_ratios=[2, 2], heads=2, head_dim=8,
    windows_per_side=[2, 1], centers_per_side=[2, 2],
    layer_scale=1.0,
)  # fmt: skip
OPTIM = {"lr_base_batch": 16, "warmup_epochs": 1, "sched_on_updates": True, "ema_decay": 0.9}


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in a fixed order, so that runs compare bit for bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def few_test_images(monkeypatch):
    monkeypatch.setattr(digits, "open_digits", few_digits)


@pytest.fixture(scope="session")
def forks():
    """Trains in processes that can be killed."""
    server = Forks()
    yield server
    server.close()


@pytest.fixture
def no_pictures(monkeypatch):
    """Drawing takes most of the time of a short run."""
    monkeypatch.setattr(finish, "_draw", lambda picture, path: None)


@pytest.fixture
def tiny_config(tmp_path):
    """Makes configurations of 3 epochs of 7 batches on 112 digits, validated on 20 and tested on 60, with everything
    that is random switched on."""

    def make(*, kwargs=None, optim=None, mix=None, data=None, **top) -> ClassifyImagesConfig:
        cfg = ClassifyImagesConfig(
            data=DataConfig(**({"limit": 112, "val_fraction": 0.02} | (data or {}))),
            model=ModelConfig(name="coc_tiny", kwargs=TINY | {"drop_path_rate": 0.2} | (kwargs or {})),
            optim=OptimConfig(**(OPTIM | (optim or {}))),
            mix=MixConfig(**({"mixup": 0.4, "cutmix": 1.0, "smoothing": 0.1} | (mix or {}))),
            output_dir=str(tmp_path / "run"),
            epochs=3,
            batch_size=16,
            log_every=2,
        )
        return dataclasses.replace(cfg, **top)

    return make


CLASSES = ("<img src=x>", "a|b")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """The folder of a run on a folder of images, one of them damaged; other tests must not change it."""
    place = tmp_path_factory.mktemp("jane")
    for split in ("train", "test"):
        for shade, name in enumerate(CLASSES):
            (place / "letters" / split / name).mkdir(parents=True)
            for i in range(8):
                Image.new("L", (8, 8), 100 * shade + i).save(place / "letters" / split / name / f"{i}.png")
    (place / "letters/test/a|b/bad.png").write_bytes(b"no image")
    cfg = ClassifyImagesConfig(
        data=DataConfig(source="folder", root=str(place / "letters"), img_size=8, in_chans=1),
        model=ModelConfig(name="coc_tiny", kwargs=TINY),
        optim=OptimConfig(warmup_epochs=0),
        output_dir=str(place / "run"),
        epochs=1,
        batch_size=8,
    )
    train_all(cfg, recipe=None)
    return place / "run"
