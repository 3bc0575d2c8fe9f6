"""A run that is killed and started again ends with the weights of a run that was never stopped, bit for bit."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from pointmix.engine import loop, states
from pointmix.engine.signals import Stopped
from pointmix.engine.train import train
from pointmix.tasks.base import task_of
from pointmix.tasks.config import as_plain
from tests.engine.trees import assert_equal

pytestmark = pytest.mark.usefixtures("no_pictures")
ROOT = Path(__file__).resolve().parents[2]

# Trains as the script does, and waits before every step.
CHILD = """
import sys, time
import torch
torch.set_num_threads(1)
from pointmix.engine import loop
from pointmix.engine.flags import parse
from pointmix.engine.train import train
from pointmix.tasks.base import get_task
step = loop.train_step
def slow(run, group):
    time.sleep(0.3)
    return step(run, group)
loop.train_step = slow
train(parse(sys.argv[2:], get_task(sys.argv[1]).config))
"""


def child(cfg):
    file = Path(cfg.output_dir).parent / "child.yaml"
    file.write_text(yaml.safe_dump(as_plain(cfg)))
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, task_of(cfg).name, f"--config={file}"]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def state(cfg):
    return states.load_state(f"{cfg.output_dir}/{states.FOLDER}")[0]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def straight(tiny_config, shared):
    """A run that is never stopped: mixing, drop-path, EMA, accumulation with a short last group, kept epochs."""
    cfg = tiny_config(grad_accum_steps=2, output_dir=str(shared / "straight"), keep_epochs=2)
    train(cfg)  # the first test trains, the others find it finished
    return cfg


def assert_same_end(straight, resumed):
    assert_equal(state(straight), state(resumed))
    assert_equal(
        load_file(f"{straight.output_dir}/model.safetensors"), load_file(f"{resumed.output_dir}/model.safetensors")
    )
    folders = [Path(cfg.output_dir, "epochs") for cfg in (straight, resumed)]
    kept = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert kept[0].keys() == {"epoch_2.safetensors"} and kept[0] == kept[1]


def test_killed_in_the_middle_of_an_epoch(straight, forks, tmp_path, capsys):
    cfg = dataclasses.replace(straight, output_dir=str(tmp_path / "killed"), save_every_steps=5)
    # four steps an epoch: step 5, which was saved, and step 8 lie in the second
    killed = forks.run(cfg, kill={"event": "step", "count": 8})
    assert killed["codes"] == [-signal.SIGKILL], killed["out"]
    at = state(cfg)["train_state"]
    assert (at["step"], at["epoch"], at["update"]) == (5, 1, 1)
    train(cfg)
    assert "resuming from step 5 of 12" in capsys.readouterr().out
    assert_same_end(straight, cfg)


def test_killed_from_outside_at_any_moment(straight, tmp_path):
    cfg = dataclasses.replace(straight, output_dir=str(tmp_path / "killed"), save_every_steps=1)
    process = child(cfg)
    deadline = time.monotonic() + 120
    while not states.list_states(Path(cfg.output_dir) / states.FOLDER):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.001)
    time.sleep(0.13)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert 1 <= state(cfg)["train_state"]["step"] < 12
    train(cfg)
    assert_same_end(straight, cfg)


@pytest.mark.parametrize("step", [1, 4, 6, 12])
def test_stopped_by_a_signal(straight, tmp_path, monkeypatch, step):
    """Also after the last step of an epoch, before its validation (4), and after the very last step (12)."""
    cfg = dataclasses.replace(straight, output_dir=str(tmp_path / "stopped"))
    original = loop.train_step

    def interrupted(run, group):
        if run.state.step + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(run, group)

    monkeypatch.setattr(loop, "train_step", interrupted)
    with pytest.raises(Stopped):
        train(cfg)
    monkeypatch.setattr(loop, "train_step", original)
    torch.rand(5)  # the numbers drawn in between must not matter
    train(cfg)
    assert_same_end(straight, cfg)


def test_stopped_again_and_again(straight, tmp_path):
    """Ends after every few steps, as on a machine that is lent for a short while; the last file is the state's."""
    cfg = dataclasses.replace(straight, output_dir=str(tmp_path / "often"))
    for steps in (3, 7, 8):
        train(dataclasses.replace(cfg, max_steps=steps))
        assert state(cfg)["train_state"]["step"] == steps
    train(cfg)
    assert_equal(state(straight)["model"], state(cfg)["model"])
    assert_equal(state(straight)["ema"], state(cfg)["ema"])


def test_workers_may_differ_on_resume(straight, tmp_path):
    cfg = dataclasses.replace(straight, output_dir=str(tmp_path / "workers"))
    train(dataclasses.replace(cfg, max_steps=6))
    train(dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, workers=1)))
    assert_equal(state(straight)["model"], state(cfg)["model"])
