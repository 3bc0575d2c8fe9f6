"""Matrix products inside compiled functions: the kernels of oneDNN that torch's own compiler uses."""

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
# at::native::cpublas::brgemm(long x 6, bool, A const*, B const*, float*, bool) of bfloat16 and of float32
BFLOAT16, FLOAT32 = (
    f"_ZN2at6native7cpublas6brgemmEllllllb{pointers}Pfb" for pointers in ("PKN3c108BFloat16ES5_", "PKfS3_")
)
RELEASE = "_ZN2at6native7cpublas14brgemm_releaseEb"  # brgemm_release(bool)


@cache
def brgemm_addresses() -> tuple[int, int]:
    """The addresses of the product of bfloat16 matrices and of `release`; zeros where torch lacks them or oneDNN might
    refuse the product."""
    functions = _address(BFLOAT16), _address(RELEASE)
    return functions if torch.cpu._is_avx512_bf16_supported() and all(functions) else (0, 0)


@cache
def brgemm_float32_address() -> int:
    """The address of the product of float32 matrices; 0 where torch lacks it or oneDNN would not compute it."""
    return _address(FLOAT32)


def _address(name: str) -> int:
    limited = {"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"} & os.environ.keys() or not torch.backends.mkldnn.enabled
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    if platform.machine() != "x86_64" or torch_library() is None or not wide or limited:
        return 0
    function = getattr(torch_library(), name, None)
    return 0 if function is None else ctypes.cast(function, ctypes.c_void_p).value


def _product(pairs):
    def _brgemm(context, address, m, n, k, lda, ldb, ldc, add, a, b, c):
        """c = a b, added to c if `add`: a (m, k), b (k, n), c (m, n) float32."""

        def code(context, builder, signature, given):
            address, *numbers = given
            numbers.append(ir.Constant(INT64, pairs))
            kind = ir.FunctionType(ir.VoidType(), [INT64] * len(numbers))  # pointers and flags travel like integers
            builder.call(builder.inttoptr(address, kind.as_pointer()), numbers)
            return context.get_dummy_value()

        return types.void(*(types.int64,) * 11), code

    return intrinsic(unwrap(_brgemm))


def _release(context, address):
    """Give the matrix unit of this core back."""

    def code(context, builder, signature, given):
        kind = ir.FunctionType(ir.VoidType(), [INT64])
        builder.call(builder.inttoptr(given[0], kind.as_pointer()), [ir.Constant(INT64, 1)])
        return context.get_dummy_value()

    return types.void(types.int64), code


brgemm, brgemm_float32 = _product(pairs=1), _product(pairs=0)  # bfloat16, with b in pairs of rows; float32
release = intrinsic(unwrap(_release))
