"""On a CPU: the switches are set, and set back."""

from __future__ import annotations

import os

import pytest
import torch

from pointmix.engine.determinism import WORKSPACE, deterministic
from pointmix.engine.train import train


def switches():
    cudnn = torch.backends.cudnn
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    return *algorithms, cudnn.deterministic, cudnn.benchmark, os.environ.get(WORKSPACE)


@pytest.mark.parametrize("benchmark, workspace", [(True, None), (False, ":16:8"), (True, "other")])
def test_switches_are_set_and_set_back(monkeypatch, benchmark, workspace):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", benchmark)
    monkeypatch.delenv(WORKSPACE, raising=False)
    if workspace is not None:
        monkeypatch.setenv(WORKSPACE, workspace)
    before = switches()
    with deterministic(False):
        assert switches() == before
    with pytest.raises(KeyError), deterministic(True):
        assert switches() == (True, False, True, False, ":16:8" if workspace == ":16:8" else ":4096:8")
        raise KeyError
    assert switches() == before


def test_cuda_that_has_started_otherwise_is_told(monkeypatch):
    monkeypatch.delenv(WORKSPACE, raising=False)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    before = switches()
    with pytest.raises(ValueError, match=f"deterministic true: CUDA has started; set {WORKSPACE}=:4096:8"):
        with deterministic(True):
            pass
    assert switches() == before


def test_a_second_run_after_the_first_has_started_cuda(monkeypatch):
    """As with several seeds."""
    monkeypatch.delenv(WORKSPACE, raising=False)
    for _ in range(2):
        with deterministic(True):
            monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert os.environ[WORKSPACE] == ":4096:8"
    monkeypatch.delenv(WORKSPACE)


def test_an_operation_without_such_an_algorithm_is_told_in_one_line():
    with pytest.raises(ValueError, match="^deterministic true: x does not have a deterministic implementation, but"):
        with deterministic(True):
            raise RuntimeError("x does not have a deterministic implementation, but you set it. You can\nturn it off")
    with pytest.raises(RuntimeError, match="other"):
        with deterministic(True):
            raise RuntimeError("other")


@pytest.mark.usefixtures("no_pictures")
def test_a_deterministic_run(tiny_config, monkeypatch):
    seen = []
    original = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *a, **k: seen.append(switches()) or original(*a, **k))
    before = switches()
    metrics = train(tiny_config(max_steps=1, deterministic=True))
    assert metrics["steps"] == 1 and switches() == before
    assert [(first, workspace) for first, *_, workspace in seen] == [(True, ":4096:8")]
