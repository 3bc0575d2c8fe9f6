"""Products of bfloat16 matrices inside compiled functions: the kernels of oneDNN that torch's own compiler uses."""

# mypy: ignore-errors
from __future__ import annotations

import ctypes
import os
import platform
from functools import cache
from inspect import unwrap

import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pointmix.ops.kernels.blas import torch_library

INT64 = ir.IntType(64)
# at::native::cpublas::brgemm(long x 6, bool, BFloat16 const*, BFloat16 const*, float*, bool), brgemm_release(bool)
NAMES = "_ZN2at6native7cpublas6brgemmEllllllbPKN3c108BFloat16ES5_Pfb", "_ZN2at6native7cpublas14brgemm_releaseEb"


@cache
def brgemm_addresses() -> tuple[int, int]:
    """The addresses of both functions; zeros where torch lacks them or oneDNN might refuse the product."""
    instructions = torch.cpu._is_avx512_bf16_supported() and torch.backends.cpu.get_cpu_capability() == "AVX512"
    limited = {"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"} & os.environ.keys() or not torch.backends.mkldnn.enabled
    library = torch_library()
    if platform.machine() != "x86_64" or library is None or not instructions or limited:
        return 0, 0
    functions = [getattr(library, name, None) for name in NAMES]
    product, release = (0 if f is None else ctypes.cast(f, ctypes.c_void_p).value for f in functions)
    return (product, release) if product and release else (0, 0)


def _brgemm(context, address, m, n, k, lda, ldb, ldc, add, a, b, c):
    """c = a b, added to c if `add`: a (m, k) bfloat16, b (k, n) bfloat16 in pairs of rows, c (m, n) float32."""

    def code(context, builder, signature, given):
        address, *numbers = given
        numbers.append(ir.Constant(INT64, 1))  # b is in pairs
        kind = ir.FunctionType(ir.VoidType(), [INT64] * len(numbers))  # pointers and flags travel like integers
        builder.call(builder.inttoptr(address, kind.as_pointer()), numbers)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 11), code


def _release(context, address):
    """Give the matrix unit of this core back."""

    def code(context, builder, signature, given):
        kind = ir.FunctionType(ir.VoidType(), [INT64])
        builder.call(builder.inttoptr(given[0], kind.as_pointer()), [ir.Constant(INT64, 1)])
        return context.get_dummy_value()

    return types.void(types.int64), code


brgemm, release = intrinsic(unwrap(_brgemm)), intrinsic(unwrap(_release))
