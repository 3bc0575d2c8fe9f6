from __future__ import annotations

import gc
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from pointmix.layouts import cache
from pointmix.layouts.cache import cached, cached_bytes, clear, get_tag, set_tag

X = torch.zeros(3)
BUILT: list[tuple] = []


def numbers(count: int, device: torch.device) -> torch.Tensor:
    """400 bytes for 100 of them."""
    BUILT.append((count, device.type))
    return torch.arange(count, device=device, dtype=torch.float32)


@pytest.fixture(autouse=True)
def empty():
    clear()
    BUILT.clear()
    yield
    clear()


# ---- shared -----------------------------------------------------------------------------------------------------


def test_is_built_once_for_each_size_and_device():
    first = cached(numbers, 5, like=X)
    assert cached(numbers, 6, like=X).shape == (6,) and cached(numbers, 5, like=X.to("meta")).device.type == "meta"
    assert cached(numbers, 5, like=X) is first and cached(numbers, 5, like=torch.ones(1, dtype=torch.int64)) is first
    assert BUILT == [(5, "cpu"), (6, "cpu"), (5, "meta")]


def test_the_default_precision_is_part_of_what_was_asked_for():
    def half(device):
        return torch.ones(1, dtype=torch.int64, device=device) / 2

    assert cached(half, like=X).dtype == torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert cached(half, like=X).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_serves_training_after_inference():
    with torch.inference_mode():
        x = cached(numbers, 5, like=torch.zeros(3))
    assert not x.is_inference() and not x.requires_grad and cached(numbers, 5, like=X) is x
    weight = torch.ones(5, requires_grad=True)
    (weight * x).sum().backward()
    assert torch.equal(weight.grad, x)


def test_the_first_to_ask_does_not_decide_on_autocast():
    def product(device):
        return torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)

    with torch.autocast("cpu", torch.bfloat16):
        assert cached(product, like=X).dtype == torch.float32


@pytest.mark.parametrize("spoil", [lambda x: x.add_(1), lambda x: x.view(-1)[0].fill_(7), lambda x: x.requires_grad_()])
def test_what_was_written_to_is_built_anew(spoil):
    spoil(cached(numbers, 5, like=X))
    again = cached(numbers, 5, like=X)
    assert torch.equal(again, torch.arange(5.0)) and not again.requires_grad
    assert cached(numbers, 5, like=X) is again


def test_number_of_entries_is_bounded(monkeypatch):
    monkeypatch.setattr(cache, "ENTRIES", 3)
    first = cached(numbers, 1, like=X)
    for count in range(2, 6):
        cached(numbers, count, like=X)
        assert cached(numbers, 1, like=X) is first  # used all the time
    assert len(cache._entries) == 3 and cached_bytes() == 4 * (1 + 4 + 5)
    BUILT.clear()
    cached(numbers, 2, like=X)
    assert BUILT == [(2, "cpu")]


def test_bytes_are_bounded(monkeypatch):
    monkeypatch.setattr(cache, "BYTES", 1000)
    for count in (100, 100, 150, 90, 10, 120):
        cached(numbers, count, like=X)
        assert cached_bytes() <= 1000
    assert cached_bytes() == 4 * (90 + 10 + 120)
    cached(numbers, 251, like=X)  # too large for all of it: the others stay
    assert cached_bytes() == 4 * (90 + 10 + 120) and len(cache._entries) == 3


def test_a_view_counts_as_all_that_it_keeps():
    def expanded(device):
        return torch.zeros(1000, device=device)[:1].expand(10)

    cached(expanded, like=X)
    assert cached_bytes() == 4000


def test_fake_tensors_are_not_kept_nor_given():
    real = cached(numbers, 5, like=X)
    with FakeTensorMode() as mode:
        x = cached(numbers, 5, like=torch.empty(3))
        y = cached(numbers, 6, like=torch.empty(3))
        assert isinstance(x, FakeTensor) and isinstance(y, FakeTensor) and x is not real
        assert isinstance(mode.from_tensor(X) + cached(numbers, 3, like=X), FakeTensor)
    assert cached(numbers, 5, like=X) is real and all(type(cached(numbers, i, like=X)) is torch.Tensor for i in (3, 6))


def test_traces_hold_what_builds_not_what_was_built():
    cached(numbers, 3, like=X)
    for mode in ("real", "fake", "symbolic"):
        graph = make_fx(lambda x: x + cached(numbers, 3, like=x), tracing_mode=mode)(X)
        assert "arange" in graph.code and torch.equal(graph(torch.ones(3)), torch.arange(3.0) + 1)
    program = torch.jit.trace(lambda x: x + cached(numbers, 3, like=x), X)
    assert "arange" in str(program.graph)
    exported = torch.export.export(Adds(), (X,))
    assert "arange" in exported.graph_module.code and not exported.constants


class Adds(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + cached(numbers, 3, like=x)


def test_transforms_build_their_own():
    def loss(x):
        return (x * cached(numbers, 3, like=x)).sum()

    rows = torch.randn(2, 3)
    with torch.no_grad():
        assert torch.equal(torch.func.vmap(torch.func.grad(loss))(rows), torch.arange(3.0).expand(2, 3))
    assert not cache._entries
    assert torch.equal(torch.func.grad(lambda x: (x * cached(numbers, 3, like=X)).sum())(X), torch.arange(3.0))
    assert not cache._entries  # what is built inside a transform belongs to it, though X does not
    kept = cached(numbers, 3, like=X)
    assert torch.equal(torch.func.vmap(loss)(rows), rows @ kept) and cached(numbers, 3, like=X) is kept


def test_tensors_that_are_more_than_plain_build_their_own():
    class Named(torch.Tensor):
        pass

    cached(numbers, 3, like=X.as_subclass(Named))
    assert not cache._entries


def test_threads_share():
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: cached(numbers, i % 5 + 1, like=X), range(400)))
    assert all(torch.equal(x, torch.arange(float(i % 5 + 1))) for i, x in enumerate(found))
    assert len(cache._entries) == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_does_not_wait_for_a_thread_that_it_does_not_have():
    process = multiprocessing.get_context("fork").Process(target=_in_child)
    with cache._lock:
        process.start()
    process.join(20)
    alive = process.is_alive()
    if alive:
        process.kill()
    assert not alive and process.exitcode == 0


def _in_child() -> None:
    with torch.inference_mode():
        assert cached(numbers, 5, like=X).shape == (5,)


# ---- notes ------------------------------------------------------------------------------------------------------


def test_notes_last_until_somebody_writes():
    x = torch.zeros(3)
    assert get_tag(x) is None
    set_tag(x, ("fact",))
    assert get_tag(x) == ("fact",) and get_tag(x.clone()) is None and get_tag(x.view(3)) is None
    with torch.inference_mode():
        assert get_tag(x) == ("fact",)
        x.add_(1)
    assert get_tag(x) is None


def test_notes_do_not_stand_in_for_gradients():
    x = torch.zeros(3)
    set_tag(x, "fact")
    x.requires_grad_()
    assert get_tag(x) is None


def test_nothing_is_noted_of_inference_tensors():
    with torch.inference_mode():
        x = torch.zeros(3)
        set_tag(x, "fact")
        assert get_tag(x) is None


def test_tags_go_with_their_tensors():
    before = len(cache._tags)
    x = torch.zeros(3)
    set_tag(x, "fact")
    assert len(cache._tags) == before + 1
    del x
    gc.collect()
    assert len(cache._tags) <= before
