from __future__ import annotations

import pytest
import torch

from pointmix.ops import backends, choice, use_backend
from pointmix.ops.choice import BACKENDS, ORDER, Backend, fastest
from pointmix.ops.sampling import farthest_point_sampling

POS = torch.zeros(4, 3)


def test_what_there_is():
    rows = {row["name"]: row for row in backends()}
    assert list(rows) == list(BACKENDS)
    assert rows["torch"]["installed"] and rows["scipy"]["installed"]
    assert rows["scipy"]["in use"] == [
        f"{op} on cpu" for op in ("farthest_points", "knn") if fastest(op, POS, 1).__module__.endswith(".scipy")
    ]
    assert all(row["installed"] or not row["in use"] for row in rows.values())


def test_what_is_in_use_follows_the_block():
    with use_backend("torch"):
        rows = {row["name"]: row["in use"] for row in backends()}
        assert rows["torch"][:2] == ["farthest_points on cpu", "knn on cpu"] and not rows["scipy"]
        assert fastest("knn", POS, 1) is None
    assert fastest("knn", POS, 1) is not None


def test_blocks_nest_and_end_with_errors():
    with use_backend("scipy"):
        with pytest.raises(RuntimeError), use_backend("torch"):
            assert fastest("knn", POS, 1) is None
            raise RuntimeError
        assert fastest("knn", POS, 1) is not None


def test_every_order_names_backends_that_have_the_operation():
    for (op, device), names in ORDER.items():
        assert all(op in BACKENDS[n].limits and device in BACKENDS[n].devices for n in names)


def test_unknown_and_absent_backends(monkeypatch):
    with pytest.raises(ValueError, match="^unknown backend 'cuda', expected one of torch, "), use_backend("cuda"):
        pass
    absent = Backend("no_such_library", "pip install no-such-library", {"knn": 1})
    monkeypatch.setitem(choice.BACKENDS, absent.name, absent)
    with pytest.raises(ModuleNotFoundError, match="^backend 'no_such_library' is not installed: pip install no-such"):
        with use_backend(absent.name):
            pass


def test_absent_backends_are_passed_over(monkeypatch):
    absent = Backend("no_such_library", "", {"knn": 1})
    monkeypatch.setitem(choice.BACKENDS, absent.name, absent)
    monkeypatch.setitem(choice.ORDER, ("knn", "cpu"), (absent.name, "scipy"))
    assert fastest("knn", POS, 1).__module__.endswith(".scipy")


def test_limits_hold_unless_a_backend_is_asked_for(monkeypatch):
    small = Backend("scipy", "", {"knn": 4}, ("cpu",))
    monkeypatch.setitem(choice.BACKENDS, "scipy", small)
    assert fastest("knn", POS, 4) is not None and fastest("knn", POS, 5) is None
    with use_backend("scipy"):
        assert fastest("knn", POS, 5) is not None


def test_a_backend_that_cannot_take_the_positions_says_so(monkeypatch):
    monkeypatch.setitem(choice.BACKENDS, "scipy", Backend("scipy", "", {"farthest_points": 9}, ("cuda",)))
    with use_backend("scipy"), pytest.raises(ValueError, match="^backend 'scipy' runs on cuda, but .* on cpu"):
        farthest_point_sampling(POS, torch.tensor([0, 4]), 2)
    single = Backend("scipy", "", {"farthest_points": 9}, ("cpu",), (torch.float32,))
    monkeypatch.setitem(choice.BACKENDS, "scipy", single)
    with use_backend("scipy"), pytest.raises(ValueError, match="takes torch.float32 positions, got torch.float64"):
        farthest_point_sampling(POS.double(), torch.tensor([0, 4]), 2)


def test_operations_that_a_backend_does_not_have_are_done_as_always(monkeypatch):
    monkeypatch.setitem(choice.BACKENDS, "scipy", Backend("scipy", "", {"knn": 9}, ("cpu",)))
    monkeypatch.setitem(choice.ORDER, ("farthest_points", "cpu"), ())
    with use_backend("scipy"):
        assert fastest("farthest_points", POS, 1) is None
