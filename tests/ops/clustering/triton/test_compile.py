"""The clustering kernels as machine code for GPUs that need not be there: the interpreter does not look at types."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

KERNELS = [  # direction, type of the numbers, kind, centers, channels, offsets in place of rows, capability
    ("forward", "bf16", "hard", 4, 24, False, 80),
    ("backward", "bf16", "hard", 4, 24, True, 90),
    ("forward", "fp32", "released", 4, 32, True, 90),
    ("backward", "fp32", "cosine", 4, 32, False, 80),
    ("backward", "bf16", "lorentz", 16, 32, False, 90),
]


def test_kernels_compile(tmp_path):
    pytest.importorskip("triton", reason="triton is not installed")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    shared = [int(line) for line in done.stdout.split()]
    assert len(shared) == len(KERNELS) and max(shared) < 48 * 1024  # bytes, which every GPU has without asking


def build(direction: str, number: str, kind: str, centers: int, dim: int, ragged: bool, capability: int) -> int:
    """Compiles as a launch would; bytes of shared memory."""
    import torch
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from pointmix.ops.clustering.triton import kernels
    from pointmix.ops.clustering.triton.operators import settings

    fn = getattr(kernels, direction)
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[number]
    sizes = settings(*[torch.empty(1, centers, 4, dim, dtype=dtype)] * 3, gradients=direction == "backward")
    options = {name: sizes.pop(name) for name in ("num_warps", "enable_fp_fusion")}
    constants = {"HEADS": (dim,) * 5, "KIND": kind, "COUNT": False, "UNWEIGHTED": False, **sizes}
    bent, soft = kind in ("lorentz", "released"), kind != "hard"
    absent = {"ptr": not ragged, "valid": ragged, "kappa": not bent, "dkappa": not bent}
    absent |= {"beta": soft, "dbeta": soft, "bias": not soft, "dbias": not soft}
    constants |= {name: None for name in absent if absent[name]}
    types = {"ptr": "*i64", "valid": "*i1", "center_valid": "*i1", "L": "i32", "bias_rows": "i32", "bs": ("i32",) * 4}
    types |= dict.fromkeys(("qs", "vs", "cs", "us", "os"), ("i32", "i32"))
    types |= dict.fromkeys(("alpha", "beta", "kappa", "dalpha", "dbeta", "dbias", "dkappa"), "*fp32")
    names = [p.name for p in fn.params]
    signature = {n: "constexpr" if n in constants else types.get(n, f"*{number}") for n in names}
    values = {(names.index(n),): value for n, value in constants.items() if n in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if str(signature[n]).startswith("*")}
    source = ASTSource(fn, signature, values, aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).metadata.shared


if __name__ == "__main__":
    for kernel in KERNELS:
        print(build(*kernel))
