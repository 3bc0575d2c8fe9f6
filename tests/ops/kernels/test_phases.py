from __future__ import annotations

import ctypes
from unittest.mock import Mock

import pytest
import torch
from numba.core.ccallback import CFunc

from pointmix.ops.kernels import phases


@pytest.mark.parametrize("parallel, threads", [(False, 1), (True, torch.get_num_threads())])
def test_addresses_are_in_the_order_of_the_names(parallel, threads, monkeypatch):
    seen = []

    def run(function: int, data: int, number: int) -> None:
        at = ctypes.cast(data, ctypes.POINTER(ctypes.c_void_p * 4)).contents
        sizes = ctypes.cast(at[0], ctypes.POINTER(ctypes.c_int64 * 3)).contents
        seen.append((function, list(sizes), list(at)[1:], number))

    monkeypatch.setattr(phases.threads, "run", run)
    x, z = torch.zeros(2), torch.zeros(3)
    phases.run(Mock(spec=CFunc, address=7), (1, 5, 0), ["x", "y", "z"], {"z": z, "x": x}, parallel=parallel)
    assert seen == [(7, [1, 5, 0], [x.data_ptr(), None, z.data_ptr()], threads)]
