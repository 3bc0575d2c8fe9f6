"""Loading the authors' checkpoints into our models."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pointmix.io.torch_files import load_torch
from pointmix.utils.limits import regular_file
from pointmix.utils.messages import one_line

CONTAINERS = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model",
    "net",
)  # the first one present is taken
PREFIXES = re.compile(r"^((module|model|_orig_mod)\.)+|\b_orig_mod\.")  # of data-parallel, Lightning, compiled networks

# stage i of the released network is network[2 i], the reducer before it network[2 i - 1]
Rule = tuple[str, str | Callable[[re.Match[str]], str]]  # a pattern and its replacement
_FEC_RULES: list[Rule] = [
    (r"^network\.(\d+)\.(?=conv|norm)", lambda m: f"stages.{(int(m[1]) + 1) // 2}.reducer."),
    (r"\.reducer\.conv_skip\.", ".reducer.skip."),
    (r"\.reducer\.conv_f\.", ".reducer.query."),
    (r"\.reducer\.conv_v\.", ".reducer.value."),
    (r"\.reducer\.norm2\.", ".reducer.norm."),
]
_COC_RULES: list[Rule] = [
    (r"^patch_embed\.proj\.", "stages.0.reducer."),
    (r"^network\.(\d+)\.proj\.", lambda m: f"stages.{(int(m[1]) + 1) // 2}.reducer."),
    (r"^network\.(\d+)\.(\d+)\.", lambda m: f"stages.{int(m[1]) // 2}.blocks.{m[2]}."),
    (r"\.layer_scale_(\d)$", r".scale\1.gamma"),
    (r"\.token_mixer\.sim_(alpha|beta)$", r".mixer.\1"),
    (r"\.token_mixer\.proj\.", ".mixer.proj."),
    (r"\.token_mixer\.f\.", ".mixer.qv.0:2."),  # queries are the first half of qv, values the second
    (r"\.token_mixer\.v\.", ".mixer.qv.1:2."),
    (r"^norm(\d)\.", lambda m: f"norm.{int(m[1]) // 2}."),  # pyramid
]
_POINTMLP_RULES: list[Rule] = [
    (r"^embedding\.net\.", "stem."),
    (r"^local_grouper_list\.(\d+)\.affine_", r"stages.\1."),
    (r"^(pre|pos)_blocks_list\.(\d+)\.operation\.", r"stages.\2.\1."),
    (r"^pre_blocks_list\.(\d+)\.transfer\.net\.", r"stages.\1.transfer."),
    (r"\.net(\d)\.(?=[01]\.)", r".layer\1."),
    (r"^(stem|stages.*\.(?:transfer|layer\d))\.0\.", r"\1.linear."),
    (r"^(stem|stages.*\.(?:transfer|layer\d))\.1\.", r"\1.norm."),
    (r"\.sim_(alpha|beta)$", r".\1"),
    (r"^(stages\.\d+\.pre\.\d+)\.fc1\.", r"\1.query."),
    (r"^(stages\.\d+\.pre\.\d+)\.fc_v\.", r"\1.value."),
    (r"^(stages\.\d+\.pre\.\d+)\.fc2\.", r"\1.proj."),
    (r"^classifier\.8\.", "head."),
    (r"^classifier\.([04])\.", lambda m: f"mlp.{int(m[1]) // 4}.linear."),
    (r"^classifier\.([15])\.", lambda m: f"mlp.{int(m[1]) // 4}.norm."),
]


def reference_name(key: str) -> tuple[str, tuple[int, int] | None]:
    """Our name for a tensor of the authors' network. If it is only part of our tensor, which of how many."""
    for pattern, new in _FEC_RULES + _COC_RULES + _POINTMLP_RULES:
        key = re.sub(pattern, new, key)
    part = re.search(r"\.(\d):(\d)\.", key)
    if part is None:
        return key, None
    return key.replace(part[0], "."), (int(part[1]), int(part[2]))


def load_reference(model: nn.Module, source: Mapping[str, object] | str | os.PathLike[str]) -> nn.Module:
    """Load an authors' checkpoint into one of our models, in place.

    Args:
        model: the variant that was trained, with the same number of classes; compiled or not.
        source: a state dict, or a .pth or .safetensors file that holds one, bare or under `state_dict`, `model`,
            `net` or `state_dict_ema`. Prefixes `module.`, `model.` and `_orig_mod.` are removed.

    A PointMLP reproduces the authors' outputs only if it samples as their code does, starting at the first point as
    given: build it with order="given".

    Returns:
        The model.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, or a tensor is unknown, missing or of another shape; the model is then
            unchanged.
    """
    given, model = model, getattr(model, "_orig_mod", model)
    try:
        tensors, where = read_tensors(source), "the state dict" if isinstance(source, Mapping) else source
    except ValueError as e:
        raise ValueError(f"load_reference: {e}") from e
    target = model.state_dict()
    found: dict[str, Tensor] = {}
    filled: dict[str, int] = {}  # elements read for each of our tensors
    unused, wrong = [], []
    for key, value in tensors.items():
        name, part = reference_name(key)
        if name not in target:
            unused.append(key)
            continue
        place = target[name] if part is None else target[name].chunk(part[1])[part[0]]
        if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.is_meta:
            wrong.append(f"{key} is {value.dtype} {value.layout}, expected plain numbers")
            continue
        if value.ndim > place.ndim and _sides(value) == _sides(place):  # a 1x1 convolution is a linear map
            value = value.reshape(place.shape)
        if value.shape != place.shape:
            wrong.append(f"{key} is {tuple(value.shape)}, the model has {tuple(place.shape)}")
            continue
        found.setdefault(name, target[name].clone())
        (found[name] if part is None else found[name].chunk(part[1])[part[0]]).copy_(value)
        filled[name] = filled.get(name, 0) + value.numel()
    missing = [name for name, value in target.items() if filled.get(name, 0) < value.numel()]
    if unused or wrong or missing:
        problems = wrong[:3]
        problems += [f"no place for {_some(unused)}"] if unused else []
        problems += [f"nothing for {_some(missing)}"] if missing else []
        raise ValueError(
            one_line(f"load_reference: {where} does not fit {type(model).__name__}: " + "; ".join(problems), 1000)
        )
    model.load_state_dict(found)
    return given


def read_tensors(source: Mapping[str, object] | str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name; see `load_reference` for the accepted sources.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, holds no tensors, or two tensors have the same name.
    """
    where = "the state dict" if isinstance(source, Mapping) else str(source)
    found: object = source if isinstance(source, Mapping) else _read(source)
    if not isinstance(found, Mapping):
        raise ValueError(f"{where} holds a {type(found).__name__}, expected a state dict")
    state: Mapping[object, object] = found
    while inner := [value for name in CONTAINERS if isinstance(value := state.get(name), Mapping)]:
        state = inner[0]
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        if not isinstance(value, Tensor):
            continue
        name = PREFIXES.sub("", key) if isinstance(key, str) else ""
        if not name or name in tensors:
            more = f"; {name} is there already" if name else ""
            raise ValueError(f"{where} has a tensor under {one_line(repr(key), 80)}, expected a name{more}")
        tensors[name] = value
    if not tensors:
        raise ValueError(f"{where} holds no tensors, expected a state dict")
    return tensors


def _read(path: str | os.PathLike[str]) -> object:
    path = regular_file(path)
    try:
        return load_file(path) if path.suffix == ".safetensors" else load_torch(path)
    except Exception as error:
        raise ValueError(f"{path} is not a readable checkpoint: {one_line(error)}") from error


def _sides(x: Tensor) -> list[int]:
    return [side for side in x.shape if side != 1]


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
