from __future__ import annotations

import errno
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import pointmix
from pointmix.engine import checkpoint
from pointmix.engine.checkpoint import load_run
from pointmix.utils import atomic


class FullDisk:
    """A file that takes so many bytes and then says that the disk is full."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        self.room -= len(memoryview(data).cast("B"))
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)


@pytest.mark.parametrize("room", [0, 100, 5000])
@pytest.mark.parametrize("kind", ["text", "model"])
def test_full_disk_leaves_the_previous_file_whole(tmp_path, monkeypatch, room, kind):
    def save(value):
        if kind == "text":
            atomic.write_text(tmp_path / "f", str(value) * 6000)
        else:
            model = nn.Linear(4000, 1)
            nn.init.constant_(model.weight, value)
            checkpoint.save_model(tmp_path / "f", model, {"name": "x"})

    save(1.0)
    before = (tmp_path / "f").read_bytes()
    monkeypatch.setattr("builtins.open", lambda *a, _open=open: FullDisk(_open(*a), room))
    with pytest.raises(OSError, match="cannot write .*No space left.*previous file is whole") as e:
        save(2.0)
    monkeypatch.undo()
    assert "\n" not in str(e.value)
    assert (tmp_path / "f").read_bytes() == before
    assert os.listdir(tmp_path) == ["f"]


def test_failed_sync_leaves_the_previous_file_whole(tmp_path, monkeypatch):
    atomic.write_text(tmp_path / "f", "old")
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output error"):
        atomic.write_text(tmp_path / "f", "new")
    assert (tmp_path / "f").read_text() == "old"


def test_weights_of_another_model_name_the_first_tensor():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    other = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)).state_dict()
    with pytest.raises(ValueError, match=r"f holds another model: 1.weight has shape \(4, 3\), expected \(1, 3\)"):
        checkpoint.load_weights(model, other, source="f")
    with pytest.raises(ValueError, match=r"1.weight is missing, expected shape \(1, 3\)"):
        checkpoint.load_weights(model, nn.Sequential(nn.Linear(2, 3)).state_dict(), source="f")
    with pytest.raises(ValueError, match="extra is not in the model"):
        checkpoint.load_weights(model, model.state_dict() | {"extra": torch.zeros(1)}, source="f")


INFO = {
    "task": "classify_images",
    "name": "coc_tiny",
    "kwargs": {
        "dims": [16, 24],
        "depths": [1, 1],
        "mlp_ratios": [2, 2],
        "windows_per_side": [1, 1],
        "centers_per_side": [2, 2],
    }
    | {"heads": 2, "head_dim": 8},
    "classes": ["cat", "dog", "Ü"],
    "in_chans": 1,
    "mean": [0.5],
    "std": [0.25],
    "img_size": 16,
    "data": {},
}


def test_load_run_gives_model_and_info_from_the_file_alone(tmp_path):
    model = pointmix.create_model(INFO["name"], num_classes=3, in_chans=1, **INFO["kwargs"]).eval()
    checkpoint.save_model(tmp_path / "model.safetensors", model, INFO)
    x = torch.rand(2, 1, 16, 16)
    for path in (tmp_path, str(tmp_path / "model.safetensors")):
        loaded, info = load_run(path)
        assert not loaded.training
        assert torch.equal(loaded(x), model(x))
        assert {k: info[k] for k in INFO} == INFO


def test_load_run_fetches_nothing(tmp_path, monkeypatch):
    model = pointmix.create_model(INFO["name"], num_classes=3, in_chans=1, **INFO["kwargs"])
    kwargs = INFO["kwargs"] | {"pretrained": True, "checkpoint_path": "gone.pth"}
    checkpoint.save_model(tmp_path / "model.safetensors", model, INFO | {"kwargs": kwargs})
    given, create = {}, pointmix.create_model
    monkeypatch.setattr("pointmix.models.create_model", lambda name, **kw: given.update(kw) or create(name, **kw))
    load_run(tmp_path)
    assert given.keys() == INFO["kwargs"].keys() | {"num_classes", "in_chans"}


def test_a_name_of_the_hub_without_its_prefix_is_recognized(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file: owner/name; .* is hf-hub:owner/name$"):
        load_run("owner/name")
    (tmp_path / "runs").mkdir()
    with pytest.raises(FileNotFoundError, match="no such file: runs/name$"):
        load_run("runs/name")


def test_load_run_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_run(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="has no model.safetensors; has the run ended"):
        load_run(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        load_run(file)
    save_file({"w": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match="was not written by a run: its metadata has no 'task'"):
        load_run(file)
    checkpoint.save_model(file, nn.Linear(1, 1), INFO)
    with pytest.raises(ValueError, match="holds another model: stages.0"):
        load_run(file)


def test_saved_weights_do_not_share_memory_problems(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight  # tied
    checkpoint.save_model(tmp_path / "m", model, {"name": "x"})
    weights = load_file(tmp_path / "m")
    assert torch.equal(weights["0.weight"], weights["1.weight"])


def test_a_place_where_no_file_can_be_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    atomic.check_place(tmp_path / "file")
    atomic.check_place(tmp_path / "new/folders/file")
    for place, message in ((tmp_path, "it is a folder"), (tmp_path / "file/a/b", f"{tmp_path}/file is a file")):
        for call in (lambda p: atomic.check_place(p), lambda p: atomic.write_text(p, "x")):
            with pytest.raises(OSError, match=f"cannot write {place}: {message}"):
                call(place)
    assert os.listdir(tmp_path) == ["file"]
