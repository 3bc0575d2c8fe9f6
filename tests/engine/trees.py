"""Two trees of values compared, as states and metrics are."""

from __future__ import annotations

import torch

FREE = {"seconds", "waited", "config", "versions"}  # differ between equal runs


def assert_equal(a, b, path=""):
    """Two trees are the same, tensors bit for bit; a failure names the place."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a.keys() - FREE:
            assert_equal(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_equal(*pair, f"{path}[{i}]")
    else:
        assert a == b, path
