from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from pointmix.ops import backends, choice, use_backend
from pointmix.ops.choice import BACKENDS, ORDER, Backend, fastest, fused
from pointmix.ops.sampling import farthest_point_sampling

POS = torch.zeros(4, 3)
ABSENT = Backend("no_such_library", "pip install no-such-library", {"knn": 1})


def test_what_there_is():
    rows = {row["name"]: row for row in backends()}
    assert list(rows) == list(BACKENDS)
    assert rows["torch"]["installed"] and rows["numba"]["installed"] and not rows["numba"]["to install"]
    assert rows["numba"]["in use"][:2] == ["farthest_points on cpu", "knn on cpu"]
    assert rows["torch"]["in use"][0] == "segment_sum on cpu"
    assert all(row["installed"] or (row["to install"] and not row["in use"]) for row in rows.values())


def test_limits_are_told(monkeypatch):
    monkeypatch.setitem(choice.BACKENDS, "numba", Backend("numba", "", {"farthest_points": 9, "knn": 4}, ("cpu",)))
    monkeypatch.setattr(choice, "ORDER", {(op, "cpu"): ("numba",) for op in choice.NEIGHBORS})
    rows = {row["name"]: row["in use"] for row in backends()}
    assert rows["numba"] == ["farthest_points on cpu (sets of up to 9 points)", "knn on cpu (k of up to 4)"]
    assert rows["torch"][:2] == ["farthest_points on cpu", "knn on cpu"]  # what is larger


def test_what_there_is_prints_as_a_table(monkeypatch):
    some = {"torch": BACKENDS["torch"], "numba": BACKENDS["numba"], ABSENT.name: ABSENT}
    monkeypatch.setattr(choice, "BACKENDS", some)
    monkeypatch.setattr(choice, "ORDER", {("knn", "cpu"): (ABSENT.name, "numba")})
    head, reference, numba, absent = str(backends()).splitlines()
    assert head.split() == "backend installed in use for, or how to install".split()
    assert reference.startswith("torch ") and numba.split(maxsplit=2) == ["numba", "yes", "knn on cpu"]
    assert absent.split(maxsplit=2) == ["no_such_library", "no", "pip install no-such-library"]


def test_what_nobody_has_timed_is_only_there_for_who_asks(monkeypatch):
    row = next(row for row in backends() if row["name"] == "triton")
    assert row["untimed"] == ["cluster_hard", "cluster_soft"]
    assert not any(op in use for op in row["untimed"] for use in row["in use"])
    monkeypatch.setattr(choice, "_fault", lambda name: "")
    assert "cluster_hard and cluster_soft if asked for, not timed yet" in str(backends())
    assert not fused("cluster_hard", POS, 4, 24) and not fused("cluster_soft", POS, 4, 24)


def test_what_is_in_use_follows_the_block():
    with use_backend("torch"):
        rows = {row["name"]: row["in use"] for row in backends()}
        assert rows["torch"][:2] == ["farthest_points on cpu", "knn on cpu"] and not rows["numba"]
        assert fastest("knn", POS, 1) is None
    assert fastest("knn", POS, 1) is not None


def test_blocks_nest_and_end_with_errors():
    with use_backend("numba"):
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
    monkeypatch.setitem(choice.BACKENDS, ABSENT.name, ABSENT)
    with pytest.raises(ModuleNotFoundError, match="^backend 'no_such_library' is not installed: pip install no-such"):
        with use_backend(ABSENT.name):
            pass


def test_absent_backends_are_passed_over(monkeypatch):
    monkeypatch.setitem(choice.BACKENDS, ABSENT.name, ABSENT)
    monkeypatch.setitem(choice.ORDER, ("knn", "cpu"), (ABSENT.name, "numba"))
    assert fastest("knn", POS, 1).__module__.endswith(".numba")


def test_backends_that_do_not_load_are_passed_over_and_say_so(monkeypatch):
    monkeypatch.setattr(choice, "_fault", lambda name: "undefined symbol" if name == "numba" else "")
    assert fastest("farthest_points", POS, 4) is None
    assert "numba          no         does not load: undefined symbol" in str(backends())
    with pytest.raises(ImportError, match="^backend 'numba' is installed but does not load: undefined symbol$"):
        with use_backend("numba"):
            pass


def test_a_library_that_raises_while_it_loads(monkeypatch):
    def broken(name):
        raise OSError("libc10.so: undefined symbol\nand more")

    monkeypatch.setattr(choice, "import_module", broken)
    assert choice._fault.__wrapped__("numba") == "libc10.so: undefined symbol"
    assert choice._fault.__wrapped__("torch") == "" and choice._fault.__wrapped__("no_such_library") is None


def test_numba_that_compiles_nothing_is_not_used():
    code = "from pointmix.ops import backends; print(backends())"
    env = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
    assert "numba          no         does not load: NUMBA_DISABLE_JIT is set" in done.stdout, done.stderr


def test_limits_hold_unless_a_backend_is_asked_for(monkeypatch):
    small = Backend("numba", "", {"knn": 4}, ("cpu",))
    monkeypatch.setitem(choice.BACKENDS, "numba", small)
    assert fastest("knn", POS, 4) is not None and fastest("knn", POS, 5) is None
    with use_backend("numba"):
        assert fastest("knn", POS, 5) is not None


def test_a_backend_that_cannot_take_the_positions_says_so(monkeypatch):
    monkeypatch.setitem(choice.BACKENDS, "numba", Backend("numba", "", {"farthest_points": 9}, ("cuda",)))
    with use_backend("numba"), pytest.raises(ValueError, match="^backend 'numba' runs on cuda, but .* on cpu"):
        farthest_point_sampling(POS, torch.tensor([0, 4]), 2)
    single = Backend("numba", "", {"farthest_points": 9}, ("cpu",), (torch.float32,))
    monkeypatch.setitem(choice.BACKENDS, "numba", single)
    with use_backend("numba"), pytest.raises(ValueError, match="takes torch.float32, got torch.float64"):
        farthest_point_sampling(POS.double(), torch.tensor([0, 4]), 2)


def test_operations_that_a_backend_does_not_have_are_done_as_always(monkeypatch):
    monkeypatch.setitem(choice.BACKENDS, "numba", Backend("numba", "", {"knn": 9}, ("cpu",)))
    monkeypatch.setitem(choice.ORDER, ("farthest_points", "cpu"), ())
    with use_backend("numba"):
        assert fastest("farthest_points", POS, 1) is None
