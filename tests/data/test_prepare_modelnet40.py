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
SCRIPT = ROOT / "datasets/modelnet40/prepare.py"


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("prepare_modelnet40", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "COUNTS", {"train": 80, "test": 40})
    monkeypatch.setattr(module, "POINTS", 8)
    return module


def write(root: Path) -> Path:
    root.mkdir(parents=True)
    for name in ("ply_data_train0.h5", "ply_data_train1.h5", "ply_data_test0.h5"):
        with h5py.File(root / name, "w") as file:
            file["data"], file["label"] = np.zeros((40, 8, 3), np.float32), np.arange(40)[:, None].astype(np.uint8)
    return root


def test_the_published_counts():
    assert '{"train": 9840, "test": 2468}' in SCRIPT.read_text()


def test_both_splits_are_checked(script, tmp_path, capsys):
    script.prepare(write(tmp_path / "here"), None)
    out = capsys.readouterr().out
    assert out.count("sha256") == 3 and "80 clouds: 2 airplane, 2 bathtub" in out and "modelnet40: complete" in out


def test_files_come_out_of_an_archive(script, tmp_path, capsys):
    write(tmp_path / script.FOLDER)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as zipped:
        for path in (tmp_path / script.FOLDER).iterdir():
            zipped.write(path, path.relative_to(tmp_path))
    script.prepare(tmp_path / "to", tmp_path / "x.zip")
    assert "modelnet40: complete" in capsys.readouterr().out


def test_errors_are_one_line(script, tmp_path, monkeypatch, capsys):
    write(tmp_path / "named")
    (tmp_path / "named/shape_names.txt").write_text("\n".join(f"class{i}" for i in range(40)))
    write(tmp_path / "few")
    (tmp_path / "few/ply_data_train1.h5").unlink()
    for arguments, message in (
        (["empty"], "ply_data_train*.h5"),
        (["named"], "does not name the 40 classes"),
        (["few"], "40 clouds of 8 points, expected 80 of 8"),
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
