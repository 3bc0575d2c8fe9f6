"""The command `pointmix export`."""

from __future__ import annotations

from pathlib import Path

import pytest

from pointmix.commands.export import main, shared


def test_the_file_holds_no_local_paths() -> None:
    data = {"root": "/home/anna/patients/scans", "source": "folder"}
    kept = shared({"task": "classify_images", "classes": ["a/b"], "data": data, "path": "/home/anna/run/x"})
    assert kept == {"task": "classify_images", "classes": ["a/b"], "data": {"root": "scans", "source": "folder"}}


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--run", "RUN", "--out", "net.bin"], "net.bin: expected a file that ends in .pt2 or .onnx"),
        (["--run", "RUN", "--out", "net.onnx", "--points"], "net.onnx: ONNX takes whole images of one size"),
        (["--out", "net.pt2"], "give one of --run and --model"),
        (["--model", "resnet10t", "--out", "net.pt2", "--points"], "--points needs a model of points"),
    ],
)
def test_one_line_says_what_is_wrong(
    argv: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2 and not list(tmp_path.iterdir())
    assert why in capsys.readouterr().err.splitlines()[-1]
