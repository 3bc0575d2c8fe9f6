from __future__ import annotations

import sys

from PIL import Image
from rich.console import Console

from pointmix.engine.log import Log, draw_curves, show_result

ENTRY = {
    "epoch": 1.0,
    "step": 4,
    "train_loss": 2.0,
    "val": {"top1": 0.25, "top5": 0.5, "loss": 1.5},
    "lr": 0.001,
    "seconds": 3.2,
}


def test_one_line_an_epoch_without_a_terminal(tmp_path, capsys):
    log = Log(tmp_path, epochs=2, updates_per_epoch=4, total_steps=8, step=0, on=True)
    for step in range(1, 5):
        log.step(step, 16)
    log.point(4, 2.0, 0.001)
    log.epoch(ENTRY)
    log.epoch(ENTRY | {"val": None})
    log.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "epoch 1/2  train loss 2.0000  val loss 1.5000  top-1 25.00 %  lr 1.00e-03  3 s"
    assert lines[1:] == ["epoch 1/2  train loss 2.0000  lr 1.00e-03  3 s"]


def test_other_processes_say_and_write_nothing(tmp_path, capsys):
    log = Log(tmp_path, epochs=2, updates_per_epoch=4, total_steps=8, step=0, on=False)
    log.step(1, 16)
    log.epoch(ENTRY)
    log.note("hello")
    log.close()
    assert capsys.readouterr().out == "" and list(tmp_path.iterdir()) == []


def test_curves_of_full_short_and_unvalidated_runs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # its display is the caller's: importing it fails
    history = [ENTRY, ENTRY | {"step": 8, "val": {"top1": 0.5, "top5": 0.7, "loss": 1.0}}]
    for n, (curve, entries) in enumerate(
        [([[2, 2.2, 0.1], [4, 2.0, 0.2]], history), ([], history[:1]), ([], [ENTRY | {"val": None}])]
    ):
        draw_curves(tmp_path / f"{n}.png", curve, entries)
        with Image.open(tmp_path / f"{n}.png") as picture:
            assert picture.width > 1000
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "1.png").read_bytes()


def test_result_table_says_the_result_and_where_files_lie(tmp_path):
    (tmp_path / "curves.png").touch()
    metrics = {
        "test": {"top1": 0.9, "top5": 0.99, "loss": 0.3},
        "selected": ENTRY,
        "model": {"name": "coc_tiny"},
        "data": "digits",
        "parameters": 5_570_584,
        "epochs": 3.0,
        "steps": 12,
        "seconds": 4.0,
    }
    console = Console(width=200, record=True, quiet=False, file=open("/dev/null", "w"))
    show_result(metrics, tmp_path, console=console)
    text = console.export_text()
    for part in ("90.00 %", "99.00 %", "validation top-1 25.00 %, epoch 1", "5,570,584", "5.57 M", "5.31 Mi"):
        assert part in text
    assert "curves.png" in text and "clusters.png" not in text
