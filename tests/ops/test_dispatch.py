from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import pointmix.models  # noqa: F401, registers all operations
from pointmix.ops import backends, dispatch, explain, register, use_backend
from pointmix.ops.clustering import fused
from pointmix.ops.dispatch import BACKENDS, OPERATIONS, Backend, Implementation, Operation, choose
from pointmix.ops.sampling import farthest_point_sampling

POS = torch.zeros(4, 3)
ABSENT = Backend("no_such_library", "pip install no-such-library")
KNN = OPERATIONS["knn"].implementations["numba"]


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Operations and backends that tests may change."""
    copies = {
        op: replace(o, implementations=dict(o.implementations), functions=dict(o.functions), faults=dict(o.faults))
        for op, o in OPERATIONS.items()
    }
    monkeypatch.setattr(dispatch, "OPERATIONS", copies)
    monkeypatch.setattr(dispatch, "BACKENDS", dict(BACKENDS))


def set_implementations(op: str, *implementations: Implementation) -> None:
    dispatch.OPERATIONS[op] = Operation()
    register(op, *implementations)


def rows(**options) -> dict[str, dict]:
    return {row["name"]: row for row in backends(**options)}


def reasons(op: str, **options) -> dict[str, str]:
    return {name: row["reason"] for name, row in rows(explain=op, **options).items()}


def test_what_backends_lists():
    found = rows()
    assert list(found) == list(BACKENDS)
    assert found["torch"]["installed"] and found["numba"]["installed"] and not found["numba"]["problem"]
    assert {"farthest_points on cpu", "knn on cpu"} <= set(found["numba"]["in use"])
    assert "segment_sum on cpu" in found["torch"]["in use"]
    assert found["torch"]["operations"] == list(OPERATIONS)
    assert all(row["installed"] or (row["problem"] and not row["in use"]) for row in found.values())


def test_limits_are_listed():
    set_implementations("knn", replace(KNN, limit=4, unit="neighbors"))
    found = rows()
    assert "knn on cpu (up to 4 neighbors)" in found["numba"]["in use"]
    assert "knn on cpu" in found["torch"]["in use"]  # with more neighbors


def test_backends_print_as_a_table(monkeypatch):
    monkeypatch.setattr(dispatch, "OPERATIONS", {})
    monkeypatch.setattr(dispatch, "BACKENDS", {"torch": BACKENDS["torch"]})
    register("knn", Implementation(ABSENT, "nothing:knn", default=("cpu",)), KNN)
    head, reference, absent, numba = str(backends()).splitlines()
    assert head.split() == "backend installed in use for, or how to install".split()
    assert reference.startswith("torch ") and numba.split(maxsplit=2) == ["numba", "yes", "knn on cpu"]
    assert absent.split(maxsplit=2) == ["no_such_library", "no", "not installed: pip install no-such-library"]


def test_a_module_that_does_not_load_leaves_the_next_implementation():
    broken = Implementation(Backend("json", "part of Python"), "no_such_module:knn", default=("cpu",))
    set_implementations("knn", broken, KNN)
    assert choose("knn", POS, size=1) is not None and choose("knn", POS, size=1).__module__ != "no_such_module"
    reasons = {name: row["reason"] for name, row in rows(explain="knn").items()}
    assert reasons["json"].startswith("does not load: No module named 'no_such_module'")
    register("knn", broken)  # registered again, it is tried again
    for _ in range(2):  # not only when it is tried
        with use_backend("json"), pytest.raises(ImportError, match="backend 'json' does not load: No module named"):
            choose("knn", POS, size=1)


def test_backends_that_are_no_default_are_picked_on_request_only(monkeypatch):
    row = rows()["triton"]
    assert row["on request"] == ["cluster_hard", "cluster_soft"]
    assert not any(op in use for op in row["on request"] for use in row["in use"])
    monkeypatch.setattr(dispatch, "_fault", lambda *of: "")
    assert "on request cluster_hard, cluster_soft" in str(backends())
    assert not fused("cluster_hard", POS, 4, 24) and not fused("cluster_soft", POS, 4, 24)


def test_what_is_in_use_follows_use_backend():
    with use_backend("torch"):
        found = rows()
        assert "knn on cpu" in found["torch"]["in use"] and not found["numba"]["in use"]
        assert choose("knn", POS) is None
        with use_backend(None):
            assert choose("knn", POS) is not None
    assert choose("knn", POS) is not None


def test_use_backend_nests_and_ends_with_errors():
    with use_backend("numba"):
        with pytest.raises(RuntimeError), use_backend("torch"):
            assert choose("knn", POS) is None
            raise RuntimeError
        assert choose("knn", POS) is not None


def test_every_implementation_can_be_a_default_only_where_it_runs():
    for operation in OPERATIONS.values():
        assert all(
            set(implementation.default) <= set(implementation.devices)
            for implementation in operation.implementations.values()
        )


def test_unknown_and_absent_backends():
    with pytest.raises(ValueError, match="^unknown backend 'cuda', expected one of torch, "), use_backend("cuda"):
        pass
    register("knn", Implementation(ABSENT, "nothing:knn"))
    with pytest.raises(ModuleNotFoundError, match="^backend 'no_such_library' is not installed: pip install no-such"):
        with use_backend(ABSENT.name):
            pass


def test_absent_backends_are_passed_over():
    set_implementations("knn", Implementation(ABSENT, "nothing:knn", default=("cpu",)), KNN)
    assert "numba_knn" in str(choose("knn", POS))


def test_backends_that_do_not_load_are_passed_over_and_reported(monkeypatch):
    monkeypatch.setattr(dispatch, "_fault", lambda name, _: "undefined symbol" if name == "numba" else "")
    assert choose("farthest_points", POS, size=4) is None
    assert "numba          no         does not load: undefined symbol" in str(backends())
    with pytest.raises(ImportError, match="^backend 'numba' is installed but does not load: undefined symbol$"):
        with use_backend("numba"):
            pass


def test_a_library_that_raises_while_it_loads(monkeypatch):
    def broken(name):
        raise OSError("libc10.so: undefined symbol\nand more")

    monkeypatch.setattr(dispatch, "import_module", broken)
    fault = dispatch._fault.__wrapped__
    assert fault("numba", "") == "libc10.so: undefined symbol" and fault("no_such_library", "") is None


def test_numba_with_compilation_disabled_is_not_used():
    code = "from pointmix.ops import backends; print(backends())"
    env = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
    assert "numba          no         does not load: NUMBA_DISABLE_JIT is set" in done.stdout, done.stderr


def test_limits_hold_unless_the_backend_is_requested():
    set_implementations("knn", replace(KNN, limit=4, unit="neighbors"))
    assert choose("knn", POS, size=4) is not None and choose("knn", POS, size=5) is None
    with use_backend("numba"):
        assert choose("knn", POS, size=5) is not None
        dispatch.OPERATIONS["knn"].implementations["numba"] = replace(KNN, limit=4, hard_limit=True)
        assert choose("knn", POS, size=5) is None


def test_a_requested_backend_that_cannot_take_the_positions_raises():
    implementation = OPERATIONS["farthest_points"].implementations["numba"]
    set_implementations("farthest_points", replace(implementation, devices=("cuda",)))
    with use_backend("numba"), pytest.raises(ValueError, match="^backend 'numba' runs on cuda, but .* on cpu"):
        farthest_point_sampling(POS, torch.tensor([0, 4]), 2)
    set_implementations("farthest_points", replace(implementation, dtypes=(torch.float32,)))
    with use_backend("numba"), pytest.raises(ValueError, match="takes torch.float32, got torch.float64"):
        farthest_point_sampling(POS.double(), torch.tensor([0, 4]), 2)


def test_operations_that_the_requested_backend_does_not_have_use_the_default():
    set_implementations("farthest_points")
    with use_backend("numba"):
        assert choose("farthest_points", POS) is None
    with use_backend("triton"):
        assert choose("context_cluster", POS) is not None


# ---- explanations ---------------------------------------------------------------------------------------------------


def test_explanations_name_the_backend_taken_and_what_the_others_lack(monkeypatch):
    monkeypatch.setattr(dispatch, "_fault", lambda name, _: None if name == "pytorch3d" else "")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    found = rows(explain="knn")
    assert [name for name, row in found.items() if row["taken"]] == ["numba"] and not found["numba"]["reason"]
    assert found["torch"]["reason"] == "'numba' comes first"
    assert found["triton"]["reason"] == "runs on cuda, but the input is on cpu"
    assert found["torch_cluster"]["reason"].startswith("only on request, with use_backend('torch_cluster')")
    assert str(backends(explain="knn")).splitlines()[0].split() == "backend taken why not".split()
    assert reasons("knn", like=POS.half())["numba"] == "takes torch.float32 and torch.float64, got torch.float16"
    set_implementations(
        "knn",
        Implementation(BACKENDS["pytorch3d"], "nothing:knn", default=("cpu",)),
        replace(KNN, limit=4, unit="neighbors"),
    )
    found = reasons("knn", size=5)
    assert found["pytorch3d"].startswith("not installed: see https://")
    assert found["numba"] == "takes up to 4 neighbors, got 5" and not found["torch"]
    with use_backend("torch"):
        assert reasons("knn")["numba"] == "use_backend('torch') is in effect"
    with pytest.raises(ValueError, match="^unknown operation 'nearest', expected one of "):
        backends(explain="nearest")


@pytest.mark.parametrize("op", OPERATIONS)
def test_explanations_agree_with_the_choice(op):
    x = torch.empty(0, dtype=explain._example_dtype(OPERATIONS[op]))
    taken = next(name for name, row in rows(explain=op).items() if row["taken"])
    assert (choose(op, x) is None) == (taken == "torch")


# ---- from outside ---------------------------------------------------------------------------------------------------


def test_a_backend_is_one_registration(monkeypatch):
    calls = []
    module = SimpleNamespace(farthest=lambda pos, ptr, out_ptr, start: calls.append(len(pos)) or out_ptr[:-1])
    monkeypatch.setitem(sys.modules, "my_module", module)
    mine = Backend("json", "it comes with Python")  # any module that is there
    register("farthest_points", Implementation(mine, "my_module:farthest", note="an example"))
    index, _ = farthest_point_sampling(POS, [0, 4], 1)
    assert not calls
    with use_backend("json"):
        index, _ = farthest_point_sampling(POS, [0, 4], 1)
    assert calls == [4] and index.tolist() == [0]
    assert reasons("farthest_points")["json"] == "only on request, with use_backend('json'): an example"
    assert "on request farthest_points" in str(backends())


COMPILED = """
import torch
from pointmix.ops import knn, farthest_point_sampling, segment_sum

pos, ptr = torch.randn(60, 3), torch.tensor([0, 20, 60])
for op in (lambda x: farthest_point_sampling(x, ptr, 9)[0] * 2, lambda x: knn(x, ptr, x, ptr, 4) * 2):
    found = torch.compile(op, backend="eager")(pos)
    assert torch.equal(found, op(pos))
index = torch.arange(60) // 7
total = torch.compile(lambda x: segment_sum(x, index, 9), backend="eager", fullgraph=True)(pos)
assert torch.equal(total, segment_sum(pos, index, 9))
"""


def test_compiles_in_a_process_that_has_chosen_nothing_yet():
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
