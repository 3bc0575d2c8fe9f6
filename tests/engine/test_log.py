from __future__ import annotations

import shutil
import threading
from types import SimpleNamespace

import pytest

from pointmix.engine import log as log_module
from pointmix.engine.log import Log, score_text
from pointmix.tasks.protocols import Score

OF = {"unit": "images", "scores": {"top1": Score("top-1", percent=True), "top5": Score("top-5", percent=True)}}
ENTRY = {
    "epoch": 1.0,
    "step": 4,
    "train_loss": 2.0,
    "val": {"top1": 0.25, "top5": 0.5, "loss": 1.5},
    "lr": 0.001,
    "seconds": 3.2,
}


def test_one_line_an_epoch_without_a_terminal(tmp_path, capsys):
    log = Log(tmp_path, epochs=2, updates_per_epoch=4, total_steps=8, step=0, **OF, on=True)
    for step in range(1, 5):
        log.step(step, 16)
    log.point(4, 2.0, 0.001)
    log.epoch(ENTRY)
    log.epoch(ENTRY | {"val": None})
    log.epoch(ENTRY | {"val": None, "test": {"top1": 0.5, "loss": 1.0}})
    log.epoch(ENTRY | {"val": None}, {"loss_box": 0.5, "loss_mask": 1.5})
    log.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "epoch 1/2  train loss 2.0000  val loss 1.5000  top-1 25.00 %  top-5 50.00 %  lr 1.00e-03  3 s"
    assert lines[1] == "epoch 1/2  train loss 2.0000  lr 1.00e-03  3 s"
    assert lines[2] == "epoch 1/2  train loss 2.0000  test loss 1.0000  top-1 50.00 %  lr 1.00e-03  3 s"
    assert lines[3] == "epoch 1/2  train loss 2.0000 (box 0.5000, mask 1.5000)  lr 1.00e-03  3 s"
    assert len(lines) == 4


def test_other_processes_say_and_write_nothing(tmp_path, capsys):
    log = Log(tmp_path, epochs=2, updates_per_epoch=4, total_steps=8, step=0, **OF, on=False)
    log.step(1, 16)
    log.epoch(ENTRY)
    log.note("hello")
    log.close()
    assert capsys.readouterr().out == "" and list(tmp_path.iterdir()) == []


def test_the_share_of_the_time_spent_waiting(tmp_path, monkeypatch):
    now, points = [10.0], {}
    monkeypatch.setattr(log_module.time, "perf_counter", lambda: now[0])
    log = Log(tmp_path, epochs=2, updates_per_epoch=4, total_steps=8, step=0, **OF, on=False)
    log.writer = SimpleNamespace(add_scalar=lambda name, value, step: points.__setitem__((name, step), value))
    log.writer.close = log.writer.flush = lambda: None
    for step, waited in ((1, 0.5), (2, 1.5)):
        log.step(step, 16, waited=waited)
    now[0] = 18.0
    log.point(2, 2.0, 0.001)
    log.step(3, 16, waited=7.0)
    log.epoch(ENTRY)  # begins anew
    log.step(4, 16, waited=1.0)
    now[0] = 20.0
    log.point(4, 2.0, 0.001)
    log.close()
    share, rate = "train/share_waiting_for_data", "train/samples_per_second"
    assert (points[share, 2], points[share, 4]) == (0.25, 0.5) and (points[rate, 2], points[rate, 4]) == (4, 8)


@pytest.mark.skipif(log_module.tensorboard is None, reason="tensorboard is not installed")
def test_a_run_goes_on_when_its_curves_cannot_be_written(tmp_path, capsys):
    hook = threading.excepthook
    log = Log(tmp_path / "run", epochs=2, updates_per_epoch=4, total_steps=8, step=0, **OF, on=True)
    shutil.rmtree(tmp_path / "run")
    for step in range(1, 4):
        log.point(step, 2.0, 0.001)
        log.epoch(ENTRY)
    log.close()
    out, err = capsys.readouterr()
    assert out.count("warning: tensorboard's files cannot be written any more: No such file or directory") == 1
    assert out.count("epoch 1/2") == 3 and err == "" and threading.excepthook is hook


def test_scores_in_one_line():
    scores = {
        "macc": Score("mAcc", percent=True),
        "oa": Score("OA", percent=True),
        "mae": Score("MAE"),
        "x": Score("X"),
    }
    assert score_text({"oa": 0.9, "macc": 0.875, "mae": 1.5, "loss": 3.0}, scores) == (
        "mAcc 87.50 %  OA 90.00 %  MAE 1.5000"
    )
