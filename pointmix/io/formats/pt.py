"""Tensors in files of `torch.save`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pointmix.io.registry import Columns, register_reader
from pointmix.io.torch_files import load_torch
from pointmix.utils.limits import check_array


@register_reader(".pt", ".pth", many=True)
def read_torch(path: Path) -> Columns:
    """A tensor as the column "data": positions, then features; a dict of tensors as columns; of a list a cloud each,
    tensors or dicts of tensors. Numbers, text and lists of them, such as labels, are read too, other values are not.

    Raises:
        ValueError: if it holds anything else, or a tensor is larger than the limit ARRAY_BYTES.
    """
    found = load_torch(path)
    if isinstance(found, torch.Tensor):
        found = {"data": found}
    elif isinstance(found, (list, tuple)):
        for i, value in enumerate(found):
            if not (value.numel() if isinstance(value, torch.Tensor) else isinstance(value, dict) and value):
                what = f"{'an empty' if isinstance(value, torch.Tensor | dict) else 'a'} {type(value).__name__}"
                raise ValueError(
                    f"item {i} of its list is {what}, expected a tensor or a dict of tensors, a cloud each"
                )
        found = {str(i): value for i, value in enumerate(found)}
    columns = _columns(found) if isinstance(found, dict) else {}
    if not any(isinstance(value, np.ndarray | dict) for value in columns.values()):
        raise ValueError(f"it holds a {type(found).__name__}, expected a tensor (N, C), a dict or a list of tensors")
    return columns


def _columns(found: dict[Any, Any], *, nested: bool = True) -> dict[str, object]:
    """The values of a dict that are numbers or text.

    Args:
        nested: dicts of tensors, too.
    """
    columns: dict[str, object] = {}
    for name, value in ((str(name), value) for name, value in found.items()):
        if isinstance(value, torch.Tensor):
            columns[name] = _array(name, value)
        elif isinstance(value, dict) and nested and (inner := _columns(value, nested=False)):
            columns[name] = inner
        else:
            kinds = {type(one) for one in value} if isinstance(value, (list, tuple)) else {type(value)}
            if kinds and (kinds <= {int, float} or kinds == {str}):
                columns[name] = np.asarray(value)
    return columns


def _array(name: str, tensor: torch.Tensor) -> np.ndarray:
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise ValueError(f"{name} is a tensor of {tensor.layout}, expected plain numbers")
    # a few stored values can be repeated to any shape
    check_array(tensor.shape, tensor.element_size(), name)
    plain = tensor.detach().resolve_conj().resolve_neg()
    array: np.ndarray = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    return array
