"""The files of benchmarks."""

from __future__ import annotations

import csv
from argparse import ArgumentParser, Namespace

import pytest


@pytest.fixture
def save(program, monkeypatch):
    common = program("common")
    monkeypatch.setattr(common, "described", lambda device, threads: f"a {device} with {threads} threads")
    return common.save


def test_lines_about_something_else_stay(save, tmp_path):
    args = Namespace(csv=tmp_path / "table.csv", device="cpu", threads=2)
    for rows, batch in (([("a", 1), ("b", 2)], 16), ([("b", 3), ("c", 4)], 16), ([("a", 5)], 8)):
        save(args, [{"model": name, "s": s} for name, s in rows], ("model",), quiet=True, batch=batch)
    with args.csv.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(x["model"], x["s"], x["batch"]) for x in lines] == [
        ("a", "1", "16"), ("b", "3", "16"), ("c", "4", "16"), ("a", "5", "8"),
    ]  # fmt: skip
    assert all(x["device"] == "a cpu with 2 threads" and x["date"] and x["command"] for x in lines)


def test_lines_of_a_file_without_the_settings_stay(save, tmp_path):
    args = Namespace(csv=tmp_path / "table.csv", device="cpu", threads=2)
    args.csv.write_text("model,s\na,1\na,2\n")
    for s in (3, 4):
        save(args, [{"model": "a", "s": s}], ("model",), quiet=True, batch=16)
    with args.csv.open(newline="") as file:
        assert [(x["model"], x["s"], x["batch"]) for x in csv.DictReader(file)] == [
            ("a", "1", ""), ("a", "2", ""), ("a", "4", "16"),
        ]  # fmt: skip


def test_rows_name_what_they_are_about(save, tmp_path):
    args = Namespace(csv=tmp_path / "table.csv", device="cpu", threads=2)
    with pytest.raises(KeyError, match="layout"):
        save(args, [{"model": "a"}], ("model", "layout"), quiet=True)
    assert not args.csv.exists()


def test_the_default_file_is_named_by_the_machine(program, monkeypatch):
    common = program("common")
    monkeypatch.setattr("sys.argv", ["goals.py"])
    monkeypatch.setenv("POINTMIX_BENCH", "1")  # else the process would start anew
    monkeypatch.setattr("torch.set_num_threads", lambda number: None)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    args = common.started(ArgumentParser(), "goals", seconds=0.5)
    assert args.csv == common.RESULTS / "goals_cpu_avx512.csv"
    assert args.seconds == 0.5
