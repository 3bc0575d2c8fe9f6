from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pointmix.data.images.config import DataConfig
from pointmix.data.images.source import decode
from pointmix.data.images.sources.folder import open_folder
from pointmix.data.images.sources.wds import open_shards
from pointmix.data.images.splits import build_data


def write_shards(folder: Path, out: Path, split: str) -> None:
    """Two shards of key.jpg beside key.cls, dealt in turns."""
    source = open_folder(folder)
    for shard in range(2):
        with tarfile.open(out / f"{split}-{shard:04}.tar", "w") as tar:
            for index in range(shard, len(source.targets), 2):
                for end, data in (
                    ("jpg", Path(source.name(index)).read_bytes()),
                    ("cls", str(source.targets[index]).encode()),
                    ("json", b"{}"),
                ):
                    info = tarfile.TarInfo(f"{index:06}.{end}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def shards(folder: Path, tmp_path: Path) -> Path:
    out = tmp_path / "shards"
    out.mkdir()
    write_shards(folder / "train", out, "train")
    write_shards(folder / "val", out, "validation")
    return out


def test_shards_hold_what_was_written(folder, shards):
    source, original = open_shards(str(shards), "train"), open_folder(folder / "train")
    order = [int(source.name(i).rsplit(":", 1)[1]) for i in range(30)]
    assert sorted(order) == list(range(30)) and order != sorted(order)
    assert np.array_equal(source.targets, original.targets[order])
    assert all(decode(source, i, "L").tobytes() == decode(original, k, "L").tobytes() for i, k in enumerate(order))


def test_shards_train_like_any_source(shards):
    (shards / "classes.txt").write_text("cat\ndog\n")
    cfg = DataConfig(source="wds/", root=str(shards), img_size=16, workers=2)
    splits = build_data(cfg, batch_size=8, eval_batch_size=8, seed=0)
    assert splits.classes == ["cat", "dog"]
    assert sum(len(targets) for _, targets in splits.train) == 24
    assert sum(len(targets) for _, targets in splits.test) == 7


def test_bad_shards(shards):
    with pytest.raises(FileNotFoundError, match=r"no \*holdout\*.tar below"):
        open_shards(str(shards), "holdout")
    (shards / "classes.txt").write_text("cat\n")
    with pytest.raises(ValueError, match="labels 0 to 1, for 1 class$"):
        open_shards(str(shards), "train")
    with tarfile.open(shards / "train-0009.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("lonely.jpg"))
    with pytest.raises(ValueError, match="train-0009.tar: lonely has no label"):
        open_shards(str(shards), "train")
    (shards / "train-0009.tar").write_bytes(b"x" * 2000)
    with pytest.raises(ValueError, match="cannot read shard .*train-0009.tar"):
        open_shards(str(shards), "train")
