"""One run in one folder."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pointmix.engine import lock as engine_lock
from pointmix.engine import loop
from pointmix.engine import train as engine
from pointmix.engine.lock import LOCK, lock
from pointmix.engine.train import train
from pointmix.tasks.config import ModelConfig

ROOT = Path(__file__).resolve().parents[2]

# Holds the lock and has a forked child, as a run with data workers has, which outlives it.
HOLDER = """
import os, sys, time, importlib.util
spec = importlib.util.spec_from_file_location("lock", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
with module.lock(module.Path(sys.argv[2])):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(120)
"""


@pytest.fixture
def holder(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(ROOT / "pointmix" / "engine" / "lock.py"), str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
    os.kill(child, signal.SIGKILL)


def test_a_second_run_is_refused_and_a_kill_gives_the_folder_back(tmp_path, holder, tiny_config):
    cfg = tiny_config()
    with pytest.raises(OSError, match=rf"another run writes to {cfg.output_dir} \(process {holder.pid}\); wait") as e:
        train(cfg)
    assert "\n" not in str(e.value) and os.listdir(cfg.output_dir) == [LOCK]
    holder.kill()
    holder.wait()
    with lock(Path(cfg.output_dir)):  # although the forked child still lives
        pass


def test_the_same_process_is_refused_too(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with lock(tmp_path / "run"):
        with pytest.raises(OSError, match=rf"another run writes to .*link \(process {os.getpid()}\)"):
            with lock(tmp_path / "link"):
                pass
        (tmp_path / "run" / "file").write_text("")
    with lock(tmp_path / "link"):
        pass
    assert sorted(os.listdir(tmp_path / "run")) == ["file", LOCK]


def test_a_run_that_wrote_nothing_leaves_no_folder(tmp_path, tiny_config):
    with pytest.raises(ValueError, match="coc_huge"):
        train(tiny_config(model=ModelConfig("coc_huge")))
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()  # the user's own folder stays
    with pytest.raises(ValueError, match="coc_huge"):
        train(tiny_config(model=ModelConfig("coc_huge")))
    assert os.listdir(tmp_path / "run") == [LOCK]


def test_a_file_in_place_of_the_folder(tmp_path, tiny_config):
    (tmp_path / "run").write_text("")
    with pytest.raises(OSError, match=f"the run folder is {tmp_path}/run, but {tmp_path}/run is a file; give"):
        train(tiny_config())


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("at", [2, 3])
def test_a_folder_that_is_removed_under_a_run_is_told(tiny_config, monkeypatch, at):
    """At a save, and after the last one."""
    cfg, step = tiny_config(max_steps=3, save_every_steps=2), loop.train_step
    finish = engine.finish

    def removing(run, group):
        if run.state.step + 1 == at == 2:
            shutil.rmtree(run.folder)
        return step(run, group)

    monkeypatch.setattr(loop, "train_step", removing)
    monkeypatch.setattr(engine, "finish", lambda run: shutil.rmtree(run.folder) or finish(run))
    with pytest.raises(
        OSError, match=f"the run folder {cfg.output_dir} was removed or replaced while the run wrote to it"
    ):
        train(cfg)
    assert not Path(cfg.output_dir).exists()
    monkeypatch.undo()
    assert train(dataclasses.replace(cfg, max_steps=1))["steps"] == 1


def test_of_many_threads_one_holds_the_lock(tmp_path, monkeypatch):
    """Although each of them opens the file before any has locked it."""
    opening, refused, held = threading.Barrier(4), [], []
    original = engine_lock._locked

    def slow(*args):
        time.sleep(0.02)
        return original(*args)

    def run():
        opening.wait()
        try:
            with lock(tmp_path / "run"):
                held.append(1)
                ended.wait(60)
        except OSError as e:
            refused.append(str(e))
            if len(refused) == 3:
                ended.set()

    monkeypatch.setattr(engine_lock, "_locked", slow)
    ended = threading.Event()
    threads = [threading.Thread(target=run, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(held) == 1 and len(refused) == 3
    assert set(refused) == {engine_lock._refusal(tmp_path / "run", os.getpid())}


def test_a_folder_that_another_run_takes_at_the_end_does_not_hide_an_error(tmp_path, monkeypatch):
    def taken(path):
        (path / "file").write_text("")
        raise OSError("Directory not empty")

    monkeypatch.setattr(Path, "rmdir", taken)
    with pytest.raises(ValueError, match="mine"), lock(tmp_path / "run"):
        raise ValueError("mine")
    with lock(tmp_path / "run"):
        pass
