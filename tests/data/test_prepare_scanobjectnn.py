from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "datasets/scanobjectnn/prepare.py"


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("prepare_scanobjectnn", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "COUNTS", {key: (30, 15) for key in module.COUNTS})
    monkeypatch.setattr(module, "POINTS", 8)
    return module


def write(root: Path, *names: str, labels: int = 15) -> Path:
    for name in names:
        n = 30 if "training" in name else 15
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(root / name, "w") as file:
            file["data"], file["label"] = np.zeros((n, 8, 3), np.float32), np.arange(n) % labels
    return root


ONLY = ("main_split_nobg/training_objectdataset.h5", "main_split_nobg/test_objectdataset.h5")


def test_the_published_counts():
    text = SCRIPT.read_text()
    assert '"pb_t50_rs": (11416, 2882)' in text and text.count("(2309, 581)") == 2


def test_what_is_there_is_checked_and_what_is_not_is_said(script, tmp_path, capsys):
    script.prepare(write(tmp_path, *ONLY), None)
    out = capsys.readouterr().out
    assert "obj_only: complete" in out and "obj_bg: not there" in out and "pb_t50_rs: not there" in out
    assert out.count("sha256") == 2 and "30 clouds: 2 bag, 2 bin, 2 box" in out


def test_files_come_out_of_an_archive(script, tmp_path, capsys):
    write(tmp_path / "from", *ONLY, "main_split/training_objectdataset.h5", "main_split/test_objectdataset.h5")
    with zipfile.ZipFile(tmp_path / "h5_files.zip", "w") as zipped:
        for path in (tmp_path / "from").rglob("*.h5"):
            zipped.write(path, Path("h5_files", path.relative_to(tmp_path / "from")))
    script.prepare(tmp_path / "to", tmp_path / "h5_files.zip")
    out = capsys.readouterr().out
    assert "obj_only: complete" in out and "obj_bg: complete" in out and "pb_t50_rs: not there" in out


def test_errors_are_one_line(script, tmp_path, monkeypatch, capsys):
    (tmp_path / "cut/main_split_nobg").mkdir(parents=True)
    write(tmp_path / "cut", *ONLY)
    whole = (tmp_path / "cut" / ONLY[0]).read_bytes()
    (tmp_path / "cut" / ONLY[0]).write_bytes(whole[: len(whole) // 2])
    write(tmp_path / "few", *ONLY, labels=14)
    for arguments, message in (
        (["empty"], "holds no form of ScanObjectNN"),
        (["cut"], "training_objectdataset.h5 is not a complete HDF5 file"),
        (["few"], "no cloud of class toilet"),
        (["empty", "--archive", "no.zip"], "no file no.zip"),
    ):
        monkeypatch.setattr(sys, "argv", ["prepare", str(tmp_path / arguments[0]), *arguments[1:]])
        with pytest.raises(SystemExit) as left:
            script.main()
        text = capsys.readouterr().err
        assert left.value.code == 2 and message in text and text.startswith("error: ") and text.count("\n") == 1


def test_it_runs_from_the_repository_without_installing():
    ran = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0 and "--archive" in ran.stdout
