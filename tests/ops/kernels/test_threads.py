from __future__ import annotations

import ctypes
import threading

import pytest

from pointmix.ops.kernels import threads as module


@pytest.fixture(params=["torch's threads", "threads of our own"])
def ours(request: pytest.FixtureRequest, monkeypatch) -> bool:
    if request.param == "threads of our own":
        monkeypatch.setattr(module, "_openmp", lambda: None)
    return request.param == "threads of our own"


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_each_thread_calls_once(threads, ours):
    met, everyone = [], threading.Barrier(threads)

    def note(data: int) -> None:
        everyone.wait(timeout=60)  # they are there at the same time
        met.append((data, threading.get_ident()))

    function = module.ADDRESS(note)
    module.run(ctypes.cast(function, ctypes.c_void_p).value, 1234, threads)
    assert [data for data, _ in met] == [1234] * threads
    assert len({ident for _, ident in met}) == threads
    assert (threading.get_ident() in {ident for _, ident in met}) == (not ours or threads == 1)


def test_forked_processes_have_threads_of_their_own():
    assert module.pool(2, 1) is module.pool(2, 1) and module.pool(2, 1) is not module.pool(2, 2)
