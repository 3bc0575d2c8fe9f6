from __future__ import annotations

import sys

import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from pointmix.engine.report import draw_curves, mean_and_std, show_result, show_seeds
from pointmix.engine.run import TrainState
from pointmix.tasks.protocols import Score

ENTRY = {
    "epoch": 1.0,
    "step": 4,
    "train_loss": 2.0,
    "val": {"top1": 0.25, "top5": 0.5, "loss": 1.5},
    "lr": 0.001,
    "seconds": 3.2,
}
TOP1 = ("top1", Score("top-1", percent=True))
SCORE = {"percent": True, "larger_is_better": True}
METRICS = {
    "task": "classify_images",
    "scores": {"top1": {"label": "top-1"} | SCORE, "top5": {"label": "top-5"} | SCORE},
    "monitor": "top1",
    "select": "val",
    "more_tests": {},
    "info": {"classes": ["cat", "dog"]},
    "unit": "images",
    "pictures": ["curves.png", "clusters.png"],
    "test": {"top1": 0.9, "top5": 0.99, "loss": 0.3},
    "selected": ENTRY,
    "model": {"name": "coc_tiny"},
    "data": "digits",
    "parameters": 5_570_584,
    "epochs": 3.0,
    "steps": 12,
    "seconds": 4.0,
}
CLOUDS = METRICS | {
    "test": {"oa": 0.75, "macc": 0.6, "loss": 1, "per_class": [0.8, None, 0.4]}
    | {"confusion": [[4, 1, 0], [0] * 3, [3, 0, 2]]},
    "task": "classify_points",
    "info": {"classes": ["[cup]", "b\x1bowl", "chair"], "data": {}},
    "unit": "clouds",
    "scores": {"oa": {"label": "OA"} | SCORE, "macc": {"label": "mAcc"} | SCORE},
    "monitor": "oa",
    "select": "last",
    "more_tests": {"10 votes": {"oa": 0.8, "macc": 0.7, "loss": 0.9}},
    "selected": ENTRY | {"val": None},
}


def shown(show, *args):
    with open("/dev/null", "w") as nowhere:
        console = Console(width=200, record=True, file=nowhere, highlight=False)
        show(*args, console=console)
        return console.export_text()


def test_curves_of_full_short_and_unvalidated_runs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # its display is the caller's: importing it fails
    history = [ENTRY, ENTRY | {"step": 8, "val": {"top1": 0.5, "top5": 0.7, "loss": 1.0}}]
    for n, (curve, entries) in enumerate(
        [([[2, 2.2, 0.1], [4, 2.0, 0.2]], history), ([], history[:1]), ([], [ENTRY | {"val": None}])]
    ):
        draw_curves(tmp_path / f"{n}.png", TrainState(curve=curve, history=entries), select="val", metric=TOP1)
        with Image.open(tmp_path / f"{n}.png") as picture:
            assert picture.width > 1000
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "1.png").read_bytes()


def test_curves_of_one_step_can_be_seen(tmp_path, monkeypatch):
    """Lines through one point have a mark, within axes that start at step 0."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **_: figures.append(self))
    state = TrainState(curve=[[4, 2.0, 0.1]], history=[ENTRY | {"step": 4, "val": {"top1": 0.5, "loss": 1.0}}])
    draw_curves(tmp_path / "c.png", state, select="val", metric=TOP1)
    for axis in figures[0].axes:
        assert axis.get_xlim()[0] == 0 and axis.get_xlim()[1] > 4
        assert all(line.get_marker() == "." and len(line.get_xdata()) == 1 for line in axis.lines) and axis.lines
    assert figures[0].axes[1].get_ylim() == (0, 100)


def test_curves_without_validation_say_so(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **_: figures.append(self))
    draw_curves(tmp_path / "c.png", TrainState(history=[ENTRY | {"val": None}]), select="last", metric=TOP1)
    draw_curves(tmp_path / "c.png", TrainState(history=[ENTRY]), select="last", metric=TOP1)
    texts = [[text.get_text() for text in figure.axes[1].texts] for figure in figures]
    assert texts == [["not measured during training"], []]


def test_result_table_says_the_result_and_where_files_lie(tmp_path):
    (tmp_path / "curves.png").touch()
    text = shown(show_result, METRICS, tmp_path)
    for part in ("90.00 %", "99.00 %", "validation top-1 25.00 %, epoch 1", "5,570,584", "5.57 M", "5.31 Mi"):
        assert part in text
    assert "curves.png" in text and "clusters.png" not in text and "test data by class" not in text


def test_result_of_clouds_has_a_table_of_classes(tmp_path):
    text = shown(show_result, CLOUDS, tmp_path)
    for part in ("75.00 %", "60.00 %", "10 votes", "OA 80.00 %  mAcc 70.00 %", "being the last, epoch 1"):
        assert part in text
    rows = {line.split()[1]: line.split()[2:] for line in text.splitlines() if line.count("│") == 6}
    assert rows["[cup]"] == ["│", "5", "│", "4", "│", "80.0", "%", "│", r"b\x1bowl", "(1)", "│"]
    assert rows["chair"][-3:] == ["[cup]", "(3)", "│"] and "%" not in rows[r"b\x1bowl"]


def test_selection_on_test_is_named(tmp_path):
    best = {"oa": 0.77, "macc": 0.66}
    text = shown(
        show_result, CLOUDS | {"select": "test", "last": {"oa": 0.7, "macc": 0.5}, "best_on_test": best}, tmp_path
    )
    assert "selected on the test data" in text
    assert "OA 70.00 %  mAcc 50.00 %" in text and "OA 77.00 %  mAcc 66.00 %" in text


def test_seeds_table(tmp_path):
    scores = CLOUDS["scores"]
    values = {"oa": mean_and_std([0.8, 0.9, 0.7]), "macc": mean_and_std([0.5, 0.5, 0.5])}
    summary = {"model": {"name": "m"}, "data": "d", "seeds": [1, 2, 3], "scores": scores, "select": "val"}
    text = shown(show_seeds, summary | {"test": values, "more_tests": {"10 votes": values}}, tmp_path)
    for part in ("seed 3", "80.00", "10.00", "test OA (%)", "10 votes OA (%)", str(tmp_path / "seeds.json")):
        assert part in text
    assert "of epochs selected on the test data" in shown(
        show_seeds, summary | {"test": values, "last": values, "select": "test"}, tmp_path
    )


def test_mean_and_std():
    assert mean_and_std([0.5]) == {"mean": 0.5, "std": None, "values": [0.5]}
    found = mean_and_std([1.0, 2.0, 3.0])
    assert found["mean"] == 2 and found["std"] == pytest.approx(1)


def test_a_score_that_is_no_share_is_shown_as_it_is(tmp_path):
    score = {"label": "MAE", "percent": False, "larger_is_better": False}
    metrics = METRICS | {"scores": {"mae": score}, "monitor": "mae", "test": {"mae": 1.25}}
    metrics |= {"selected": ENTRY | {"val": {"mae": 1.5}}}
    text = shown(show_result, metrics, tmp_path)
    assert "test MAE" in text and "1.2500" in text and "validation MAE 1.5000, epoch 1" in text and "loss" not in text
    values = {"mae": mean_and_std([1.0, 2.0])}
    summary = {"model": {"name": "m"}, "data": "d", "seeds": [1, 2], "scores": {"mae": score}, "select": "val"}
    text = shown(show_seeds, summary | {"test": values}, tmp_path)
    assert "test MAE" in text and "1.5000" in text and "(%)" not in text


def test_curves_of_an_error_without_a_loss(tmp_path):
    history = [ENTRY | {"step": step, "val": {"mae": 1.0 / step}} for step in (1, 2)]
    state, metric = TrainState(history=history), ("mae", Score("MAE", larger_is_better=False))
    draw_curves(tmp_path / "c.png", state, select="val", metric=metric)
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.width > 1000
