"""Equal results of equal runs on a GPU, where the fastest algorithms of torch sum in any order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # cuBLAS reads it when CUDA starts
FIXED = (":4096:8", ":16:8")  # deterministic


@contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """Within the block torch uses deterministic algorithms only. Settings are restored afterwards, except for the
    workspace of a CUDA that has started.

    Raises:
        ValueError: CUDA has started with other settings, or an operation has no deterministic algorithm; one line.
    """
    if not on:
        yield
        return
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    flags, workspace = (cudnn.deterministic, cudnn.benchmark), os.environ.get(WORKSPACE)
    if workspace not in FIXED:
        if torch.cuda.is_initialized():
            raise ValueError(f"deterministic true: CUDA has started; set {WORKSPACE}={FIXED[0]} before")
        os.environ[WORKSPACE] = FIXED[0]
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as e:
        if "does not have a deterministic implementation" not in str(e):
            raise
        raise ValueError(f"deterministic true: {str(e).split('. ')[0]}") from e
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = flags
        if workspace is not None:
            os.environ[WORKSPACE] = workspace
        elif not torch.cuda.is_initialized():  # else CUDA keeps it
            os.environ.pop(WORKSPACE, None)
