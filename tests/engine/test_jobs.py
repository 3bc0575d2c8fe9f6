from __future__ import annotations

import sys
import time

import pytest

from pointmix.engine.jobs import last_line, run_all


def python(code):
    return [sys.executable, "-c", code]


def test_so_many_at_a_time_and_each_has_its_log_and_code(tmp_path):
    wait = "import time, sys; print(time.time()); time.sleep(.6); print(time.time()); sys.exit({})"
    commands = {n: python(wait.format(n)) for n in range(3)}
    logs = {n: tmp_path / "logs" / f"{n}.log" for n in commands}
    assert sorted(run_all(commands, logs, jobs=2)) == [(0, 0), (1, 1), (2, 2)]
    spans = sorted(tuple(map(float, log.read_text().split())) for log in logs.values())
    assert spans[1][0] < spans[0][1] and spans[2][0] > min(spans[0][1], spans[1][1])


def test_several_compute_with_one_thread_each(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    say = {0: python("import os; print(os.environ['OMP_NUM_THREADS'])")}
    logs = {0: tmp_path / "log"}
    for jobs, threads in ((1, "5"), (2, "1")):
        assert list(run_all(say, logs, jobs=jobs)) == [(0, 0)]
        assert last_line(logs[0]) == threads


def test_those_that_run_end_with_the_caller(tmp_path):
    code = "import signal, time; signal.signal(15, lambda *_: exit(print('saved'))); print('on', flush=True)"
    code += "; time.sleep(60)"
    commands, logs = {"long": python(code), "short": python("1/0")}, {n: tmp_path / n for n in ("long", "short")}
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        for key, status in run_all(commands, logs, jobs=2):
            assert (key, status) == ("short", 1) and "ZeroDivisionError" in last_line(logs["short"])
            while "on" not in logs["long"].read_text():
                time.sleep(0.02)
            raise KeyboardInterrupt
    assert logs["long"].read_text().split() == ["on", "saved"] and time.monotonic() - started < 20


def test_a_command_that_says_nothing(tmp_path):
    logs = {0: tmp_path / "log"}
    assert list(run_all({0: python("exit(3)")}, logs, jobs=1)) == [(0, 3)]
    assert last_line(logs[0]) == "it printed nothing"
