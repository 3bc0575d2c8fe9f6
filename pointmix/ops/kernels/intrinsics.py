"""Instructions that numba has no function for."""

# mypy: ignore-errors
from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

INT16, INT32, INT64, FLOAT32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()


def _intrinsic(function: Callable) -> Callable:
    return intrinsic(unwrap(function))  # without the run-time shape checks of the tests


@_intrinsic
def fetch_add(context, counter):
    """counter[0], which is then one more, atomically across threads."""

    def code(context, builder, signature, arguments):
        place = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", place, ir.Constant(INT64, 1), "monotonic")

    return types.int64(counter), code


@_intrinsic
def float_bits(context, x):
    """The bits of a float32 as int32."""
    return types.int32(types.float32), lambda context, builder, signature, given: builder.bitcast(given[0], INT32)


@_intrinsic
def float_of_bits(context, bits):
    """The float32 that has these bits."""
    return types.float32(types.int32), lambda context, builder, signature, given: builder.bitcast(given[0], FLOAT32)


@_intrinsic
def widen(context, x):
    """A float32 or float64 as it is; float32 of the bits of a bfloat16."""

    def code(context, builder, signature, given):
        if isinstance(x, types.Float):
            return given[0]
        bits = builder.zext(given[0], INT32)
        return builder.bitcast(builder.shl(bits, ir.Constant(INT32, 16)), FLOAT32)

    return (x if isinstance(x, types.Float) else types.float32)(x), code


@_intrinsic
def narrow(context, x, like):
    """x, a float32 or float64, as the type of `like`: that of x, or the bits of the nearest bfloat16, the even one of
    two."""

    def code(context, builder, signature, given):
        if isinstance(like, types.Float):
            return given[0]
        bits = builder.bitcast(given[0], INT32)
        odd = builder.and_(builder.lshr(bits, ir.Constant(INT32, 16)), ir.Constant(INT32, 1))
        rounded = builder.add(bits, builder.add(odd, ir.Constant(INT32, 0x7FFF)))
        high = builder.select(builder.fcmp_unordered("uno", given[0], given[0]), bits, rounded)  # NaN as it is
        return builder.trunc(builder.lshr(high, ir.Constant(INT32, 16)), INT16)

    return like(like if isinstance(like, types.Float) else types.float32, like), code
