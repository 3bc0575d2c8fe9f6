"""States: the last two are kept, each with its best weights, and what is not as it was written is found."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pointmix.engine import checkpoint, states
from pointmix.engine.checkpoint import load_run


def make(step, *, best=None, **more):
    return {"config": {}, "model": {"w": torch.full((50,), float(step))}, "train_state": {"step": step}} | {
        "best_file": best,
        **more,
    }


def save_all(folder, steps):
    """Saves at these steps, the best weights from the first of each pair on."""
    before, best = None, None
    for i, step in enumerate(steps):
        if i % 2 == 0:
            net = nn.Linear(2, 2)
            nn.init.constant_(net.weight, step)
            best = states.save_best(folder, net, {"name": "x"}, step=step)
        before = states.save_state(folder, make(step, best=best), before=before)
    return before


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def flips(path):
    """Every way to flip one bit of a file, one after the other; afterwards it is as it was."""
    whole = path.read_bytes()
    with open(path, "r+b", buffering=0) as file:
        for at, byte in enumerate(whole):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), at)
                yield
            os.pwrite(file.fileno(), bytes([byte]), at)


def test_the_last_two_are_kept_with_their_best_weights(tmp_path):
    last = save_all(tmp_path, [3, 5, 5, 8])
    steps = [int(states.STATE.fullmatch(path.name)[2]) for path in states.list_states(tmp_path)]
    assert steps == [8, 5]
    assert sorted(path.name[:10] for path in tmp_path.iterdir()) == ["best-step5", "state3-ste", "state4-ste"]
    state, saved = states.load_state(tmp_path)
    assert state["train_state"]["step"] == 8 and saved == last and states.best_step(saved.best) == 5
    last = states.save_state(tmp_path, make(9, best=last.best), before=last)
    assert last.number == 5 and len(states.list_states(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone", "best flip", "best empty", "best gone"])
def test_a_damaged_state_is_named_and_the_one_before_is_used(tmp_path, damage):
    last = save_all(tmp_path, [3, 5, 6])
    path = tmp_path / (last.best if "best" in damage else last.file)
    if "flip" in damage:
        flip(path, 2001)
    elif "gone" in damage:
        path.unlink()
    else:
        path.write_bytes(b"" if "empty" in damage else path.read_bytes()[:-1])
    if damage == "gone":  # whoever removes a state wants the one before
        assert states.load_state(tmp_path)[0]["train_state"]["step"] == 5
        return
    with pytest.warns(UserWarning, match=f"{path.name}.*: resuming from the previous state, state2-step5") as told:
        state, saved = states.load_state(tmp_path)
    assert len(told) == 1 and "\n" not in str(told[0].message)
    assert state["train_state"]["step"] == 5 and states.best_step(saved.best) == 3
    again = states.save_state(tmp_path, make(6), before=saved)  # the damaged one is gone after the next save
    assert {p.name for p in states.list_states(tmp_path)} == {again.file, saved.file}


def test_when_both_are_damaged_nothing_is_used(tmp_path):
    save_all(tmp_path, [3, 5])
    for path in states.list_states(tmp_path):
        flip(path, 77)
    with pytest.raises(ValueError, match="is intact: .*state2-step5.* is damaged.*state1-step3.* is damaged") as e:
        states.load_state(tmp_path)
    assert "\n" not in str(e.value)


def test_every_flipped_bit_of_a_state_and_of_weights_is_found(tmp_path):
    last = save_all(tmp_path, [3])
    for name in (last.file, last.best):
        path = tmp_path / name
        for _ in flips(path):
            with pytest.raises(ValueError, match="is damaged"):
                states.check_file(path)
        states.check_file(path)


def test_a_full_disk_leaves_the_state_before(tmp_path, monkeypatch):
    last = save_all(tmp_path, [3])
    before = sorted(os.listdir(tmp_path))
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match=f"No space left on device; {last.file}, the previous state, is intact") as e:
        states.save_state(tmp_path, make(4, best=last.best), before=last)
    assert "\n" not in str(e.value) and sorted(os.listdir(tmp_path)) == before


def test_what_killed_processes_left_is_swept(tmp_path):
    (tmp_path / ".state1-step1.pt.77.tmp").write_text("half")
    (tmp_path / ".checkpoint.tmp").mkdir()
    (tmp_path / ".mine.tmp").mkdir()
    for name in (".hidden", ".mine.tmp/file", ".editor.tmp"):
        (tmp_path / name).write_text("the user's")
    states.sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".editor.tmp", ".hidden", ".mine.tmp"]
    assert os.listdir(tmp_path / ".mine.tmp") == ["file"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="what is mapped into memory is told on Linux only")
def test_a_quick_look_reads_no_tensor(tmp_path):
    saved = states.save_state(tmp_path, make(3))
    for quick in (False, True):
        state, _ = states.load_state(tmp_path, quick=quick)
        assert (saved.file in Path("/proc/self/maps").read_text()) == quick
        assert state["train_state"]["step"] == 3 and torch.equal(state["model"]["w"], torch.full((50,), 3.0))


def test_random_states_go_on_from_a_file(tmp_path):
    def draw():
        return random.random(), np.random.rand(3).tolist(), np.random.standard_normal(), torch.rand(3).tolist()

    np.random.standard_normal()  # leaves a second number waiting
    states.save_state(tmp_path, make(1, rng=states.rng_state()))
    first = draw()
    assert draw() != first
    states.set_rng_state(states.load_state(tmp_path)[0]["rng"])
    assert draw() == first


def test_numpy_values_are_saved_as_plain_ones(tmp_path):
    states.save_state(tmp_path, make(1, model={"a": np.arange(3), "b": (np.float64(2.5), [np.int64(1)])}))
    model = states.load_state(tmp_path)[0]["model"]
    assert model["a"].tolist() == [0, 1, 2] and model["b"] == (2.5, [1])


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.parametrize("kind", ["empty", "text", "pickle", "torch pickle", "dict", "list"])
def test_files_that_are_no_states(tmp_path, monkeypatch, kind):
    """Their names are right, as whoever makes them can see to."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "made"
    if kind == "torch pickle":
        torch.save(Evil(), path)
    elif kind in ("dict", "list"):
        torch.save({"model": {}} if kind == "dict" else [1], path)
    else:
        path.write_bytes({"empty": b"", "text": b"hello", "pickle": pickle.dumps(Evil())}[kind])
    sha = states.hashlib.sha256(path.read_bytes()).hexdigest()
    path.rename(tmp_path / f"state1-step1-{sha[:16]}.pt")
    for quick in (False, True):
        with pytest.raises(ValueError, match="state1-step1-.* is not a training state: ") as e:
            states.load_state(tmp_path, quick=quick)
        assert "\n" not in str(e.value) and "weights_only" not in str(e.value) and not (tmp_path / "evil").exists()


def test_no_states(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match="no state of a run in"):
            states.load_state(folder)


# ---- weights that stand alone ------------------------------------------------------------------------------------

INFO = {"task": "classify_images", "name": "coc_tiny", "classes": ["cat", "Ü"], "in_chans": 1, "kwargs": {"heads": 2}}
INFO |= {"img_size": 8, "mean": [0.5], "std": [1.0], "data": {}}


def test_equal_weights_give_equal_files(tmp_path):
    """Also where the info was put together in another order, and whatever the order of the library's hash maps."""
    net = nn.Linear(3, 2)
    backwards = dict(reversed(INFO.items()))
    for i in range(10):
        checkpoint.save_model(tmp_path / str(i), net, INFO if i % 2 else backwards)
    assert len({(tmp_path / str(i)).read_bytes() for i in range(10)}) == 1


def test_every_flipped_bit_of_weights_that_stand_alone_is_found(tmp_path):
    net, path = nn.Linear(2, 1, dtype=torch.float16), tmp_path / "model.safetensors"
    checkpoint.save_model(path, net, INFO | {"name": "none", "kwargs": {}})
    with pytest.raises(ValueError, match="none"):  # no such model, all else is right
        load_run(path)
    for _ in flips(path):
        with pytest.raises(ValueError, match="is damaged|is not a safetensors file"):
            load_run(path)


def test_weights_without_a_digest_load(tmp_path):
    import pointmix

    small = {
        "dims": [16, 24],
        "depths": [1, 1],
        "mlp_ratios": [2, 2],
        "windows_per_side": [1, 1],
        "centers_per_side": [2, 2],
    }
    info = INFO | {"kwargs": small | {"heads": 2, "head_dim": 8}}
    net = pointmix.create_model("coc_tiny", num_classes=2, in_chans=1, **info["kwargs"])
    metadata = {key: json.dumps(value) for key, value in info.items()}
    from safetensors.torch import save_file

    save_file(net.state_dict(), tmp_path / "model.safetensors", metadata)
    assert torch.equal(load_run(tmp_path)[0].head.weight, net.head.weight)
