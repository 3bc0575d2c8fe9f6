from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "datasets/cifar10/prepare.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("prepare_cifar10", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def samples(count: int) -> list[tuple[Image.Image, int]]:
    rng = np.random.default_rng(0)
    return [(Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)), i % 2) for i in range(count)]


def test_a_split_is_written_without_loss(script, tmp_path, monkeypatch):
    monkeypatch.setitem(script.COUNTS, "test", 3)
    images = samples(6)
    script.write_split(tmp_path, "test", ["cat", "dog"], images)
    files = sorted(tmp_path.rglob("*.png"), key=lambda path: path.stem)
    assert [path.parent.name for path in files] == ["cat", "dog"] * 3
    for path, (image, _) in zip(files, images, strict=True):
        with Image.open(path) as read:
            assert read.tobytes() == image.tobytes()


def test_a_wrong_count_leaves_nothing(script, tmp_path, monkeypatch):
    monkeypatch.setitem(script.COUNTS, "test", 3)
    with pytest.raises(ValueError, match="test should have 3 images of every class, but has {'dog': 2}"):
        script.write_split(tmp_path, "test", ["cat", "dog"], samples(5))
    assert list(tmp_path.iterdir()) == []


def test_errors_are_one_line(script, tmp_path, monkeypatch, capsys):
    (tmp_path / "no.tar.gz").write_bytes(b"something else")
    (tmp_path / "there/train").mkdir(parents=True)
    for root, archive, message in (
        ("out", "missing.tar.gz", "error: no file"),
        ("out", "no.tar.gz", "MD5 sum should be c58f30108f718f92721af3b95e74349a"),
        ("there", "no.tar.gz", "is there already"),
    ):
        places = ["--root", str(tmp_path / root), "--archive", str(tmp_path / archive)]
        monkeypatch.setattr(sys, "argv", ["prepare", *places])
        with pytest.raises(SystemExit) as left:
            script.main()
        text = capsys.readouterr().err
        assert left.value.code == 2 and message in text and text.count("\n") == 1


@pytest.mark.parametrize("name, linked", [("../out.txt", ""), ("/out.txt", ""), ("x", "../../out.txt")])
def test_nothing_leaves_the_archive(script, tmp_path, monkeypatch, name, linked):
    """Not even with the right sum, which is of MD5."""
    from torchvision.datasets import CIFAR10

    archive, info = tmp_path / "a.tar.gz", tarfile.TarInfo(name)
    info.type, info.linkname = (tarfile.SYMTYPE, linked) if linked else (tarfile.REGTYPE, "")
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(info)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    message = "Dataset not found" if name.startswith("/") else "cannot unpack .*a.tar.gz"  # a leading slash is dropped
    with pytest.raises((ValueError, RuntimeError), match=message):
        script.prepare(tmp_path / "root", archive)
    assert not list(tmp_path.rglob("out.txt")) and not Path("/out.txt").exists()


def test_it_runs_from_the_repository_without_installing():
    ran = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0 and "--archive" in ran.stdout
