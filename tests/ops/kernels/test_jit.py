from __future__ import annotations

import os
import subprocess
import sys

from pointmix.ops.kernels import jit

CACHED = """
import sys, warnings
import numpy as np
import torch
from pointmix.ops.context import numba as context
from pointmix.ops.kernels import jit, kdtree

with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    blocks, index, boxes = jit.call(kdtree, "build", np.arange(4.0)[:, None])
    context._compiled(torch.float32)
assert index[0, :4].tolist() == [0, 1, 2, 3]
print(*(w.message for w in told if "numba cannot use" in str(w.message)))
"""


def test_damaged_files_of_compiled_code_cost_time_and_no_more(tmp_path):
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}

    def run() -> str:
        done = subprocess.run([sys.executable, "-c", CACHED], env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert run() == "" and list(tmp_path.rglob("kdtree.*.nbi")) and list(tmp_path.rglob("numba_kernels.*.nbi"))
    for file in tmp_path.rglob("*.nbi"):
        file.write_bytes(b"")
    told = run()
    for name in ("kdtree", "numba_kernels"):
        assert told.count(f"numba cannot use its files {name}.*.nb* in {tmp_path}") == 1 and "EOFError" in told


def test_without_a_folder_it_is_compiled_in_memory(monkeypatch):
    def refuse(function, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return function

    monkeypatch.setattr(jit, "njit", refuse)
    assert jit.compiled(len) is len
