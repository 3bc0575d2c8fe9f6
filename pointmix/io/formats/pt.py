"""Tensors in files of `torch.save`."""

from __future__ import annotations

from pathlib import Path

import torch

from pointmix.io.registry import Columns, register_reader
from pointmix.io.torch_files import load_torch
from pointmix.utils.limits import check_array


@register_reader(".pt", ".pth", many=True)
def read_torch(path: Path) -> Columns:
    """A tensor as the column "data": positions, then features; a dict of tensors as columns; of a list a cloud each.

    Raises:
        ValueError: if it holds anything else, or a tensor is larger than the limit ARRAY_BYTES.
    """
    found = load_torch(path)
    if isinstance(found, torch.Tensor):
        found = {"data": found}
    elif isinstance(found, (list, tuple)):
        found = {str(i): value for i, value in enumerate(found)}
    if not isinstance(found, dict) or not any(isinstance(value, torch.Tensor) for value in found.values()):
        raise ValueError(f"it holds a {type(found).__name__}, expected a tensor (N, C), a dict or a list of tensors")
    tensors = {str(name): value for name, value in found.items() if isinstance(value, torch.Tensor)}
    columns: dict[str, object] = {}
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise ValueError(f"{name} is a tensor of {tensor.layout}, expected plain numbers")
        # a few stored values can be repeated to any shape
        check_array(tensor.shape, tensor.element_size(), name)
        plain = tensor.detach().resolve_conj().resolve_neg()
        columns[name] = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    return columns
