"""Matrix products inside compiled functions: sgemm of the library that torch itself multiplies with."""

# mypy: ignore-errors
from __future__ import annotations

import ctypes
from functools import cache
from inspect import unwrap
from pathlib import Path

import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

INT8, INT32, FLOAT32 = ir.IntType(8), ir.IntType(32), ir.FloatType()
YES, NO = ord("T"), ord("N")


@cache
def torch_library() -> ctypes.CDLL | None:
    """The library with torch's functions of the CPU; None if it is not a file of this name."""
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    return ctypes.CDLL(str(path)) if path.is_file() else None


@cache
def sgemm_address() -> int:
    """The address of MKL's sgemm in torch's library; 0 if torch does not multiply with MKL or hides it.

    In a thread of a parallel region MKL computes with one thread.
    """
    function = getattr(torch_library(), "sgemm_", None) if torch.backends.mkl.is_available() else None
    return 0 if function is None else ctypes.cast(function, ctypes.c_void_p).value


def _sgemm(context, address, transpose_a, transpose_b, m, n, k, a, lda, b, ldb, beta, c, ldc):
    """c = op(a) op(b) + beta c of float32 matrices that lie column by column, see BLAS; a, b and c are addresses."""

    def code(context, builder, signature, given):
        address, transpose_a, transpose_b, m, n, k, a, lda, b, ldb, beta, c, ldc = given

        def reference(value, kind):
            place = cgutils.alloca_once(builder, kind)
            builder.store(builder.trunc(value, kind) if isinstance(kind, ir.IntType) else value, place)
            return place

        one = ir.Constant(FLOAT32, 1)
        flags = [reference(t, INT8) for t in (transpose_a, transpose_b)]
        sizes = [reference(t, INT32) for t in (m, n, k)]
        a, b, c = (builder.inttoptr(t, FLOAT32.as_pointer()) for t in (a, b, c))
        lda, ldb, ldc = (reference(t, INT32) for t in (lda, ldb, ldc))
        arguments = [*flags, *sizes, reference(one, FLOAT32), a, lda, b, ldb, reference(beta, FLOAT32), c, ldc]
        kind = ir.FunctionType(ir.VoidType(), [t.type for t in arguments])
        builder.call(builder.inttoptr(address, kind.as_pointer()), arguments)
        return context.get_dummy_value()

    numbers = (types.int64,) * 10 + (types.float32,) + (types.int64,) * 2
    return types.void(*numbers), code


sgemm = intrinsic(unwrap(_sgemm))
