"""Weights with all that is needed to use them: safetensors with metadata, and a digest of both."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pointmix.engine.info import FETCHING, check_kwargs, read_info
from pointmix.engine.init_sources import HUB, REPOSITORY
from pointmix.tasks.base import UnknownTask, get_task
from pointmix.tasks.protocols import Info
from pointmix.utils.atomic import replacing
from pointmix.utils.limits import parameters_at_most, regular_file
from pointmix.utils.messages import one_line

FINAL = "model.safetensors"
DIGEST = "digest"  # key of the metadata; its value is JSON and begins with SHA256
SHA256 = '"sha256:'


def load_weights(model: nn.Module, weights: dict[str, Tensor], *, source: str | Path) -> None:
    """Load weights that must fit the model exactly; raises as `fit_weights`."""
    fit_weights(model, weights, source=source)
    model.load_state_dict(weights)


def fit_weights(model: nn.Module, weights: dict[str, Tensor], *, source: str | Path) -> None:
    """Check that weights fit the model exactly.

    Raises:
        ValueError: one line with the first tensor that is missing, unexpected or of another shape.
    """
    own = model.state_dict()
    for key, tensor in own.items():
        if key not in weights:
            raise ValueError(f"{source} holds another model: {key} is missing, expected shape {tuple(tensor.shape)}")
        if weights[key].shape != tensor.shape:
            shape, expected = tuple(weights[key].shape), tuple(tensor.shape)
            raise ValueError(f"{source} holds another model: {key} has shape {shape}, expected {expected}")
    for key in weights:
        if key not in own:
            raise ValueError(f"{source} holds another model: {key} is not in the model, expected {len(own)} tensors")


def save_model(path: str | Path, model: nn.Module, info: dict[str, Any]) -> None:
    """Write weights, and `info` as the file's metadata, each value as JSON. Equal weights and info give equal
    files."""
    parts = weights_file(model, info)
    with replacing(path) as file:
        for part in parts:
            file.write(part)


def weights_file(model: nn.Module, info: dict[str, Any]) -> list[bytes | memoryview]:
    """What `save_model` writes, in two parts: a header with a digest of everything else, and the tensors."""
    weights = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    metadata = {k: json.dumps(v) for k, v in info.items()} | {"format": "pt"}
    metadata[DIGEST] = content_digest(weights, metadata)
    raw = memoryview(safetensors.torch.save(weights))
    end = 8 + int.from_bytes(raw[:8], "little")
    # The library orders metadata by a hash that differs between processes, so the header is rewritten in order.
    header = json.dumps({"__metadata__": dict(sorted(metadata.items()))} | json.loads(bytes(raw[8:end]))).encode()
    header += b" " * (-len(header) % 8)
    return [len(header).to_bytes(8, "little") + header, raw[end:]]


def content_digest(weights: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """A digest of names, types, shapes and bytes of all tensors and of all metadata but the digest itself."""
    sha = hashlib.sha256(json.dumps(sorted((k, v) for k, v in metadata.items() if k != DIGEST)).encode())
    for key, tensor in sorted(weights.items()):
        sha.update(f"{key} {tensor.dtype} {list(tensor.shape)} ".encode())
        sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f'{SHA256}{sha.hexdigest()}"'


def check_digest(weights: dict[str, Tensor], metadata: dict[str, str], *, source: str | Path) -> None:
    """Compare weights and metadata with the digest in the metadata; files of other programs have none.

    Raises:
        ValueError: the digest differs; one line.
    """
    marks = [k for k, v in metadata.items() if k == DIGEST or v.startswith(SHA256)]  # either may be what is damaged
    if marks and (marks != [DIGEST] or metadata[DIGEST] != content_digest(weights, metadata)):
        raise ValueError(f"{source} is damaged: its digest differs from that of its content")


def read_weights(path: str | Path) -> tuple[Path, dict[str, Tensor], dict[str, str]]:
    """The model.safetensors of a run folder, or such a file: its path, its tensors, and its metadata.

    Raises:
        FileNotFoundError: there is no such file, or the folder has no model.safetensors yet.
        ValueError: the file is damaged.
    """
    path = Path(path)
    file = path / FINAL if path.is_dir() else path
    if not file.exists():
        what = f"the run folder {path} has no {FINAL}; has the run ended?" if path.is_dir() else f"no such file: {file}"
        if REPOSITORY.fullmatch(str(path)) and not path.parent.exists():
            what += f"; the hub's repository of that name is {HUB}{path}"
        if seeds := sorted(file.parent.name for file in path.glob(f"seed*/{FINAL}")):
            what = f"{path} holds a run for each of several seeds, expected one of them: {', '.join(seeds)}"
        raise FileNotFoundError(what)
    regular_file(file)
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            weights = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except Exception as e:  # SafetensorError, and others for an invalid header
        raise ValueError(f"{file} is not a safetensors file: {one_line(e)}") from e
    check_digest(weights, metadata, source=file)
    return file, weights, metadata


def load_run(
    path: str | Path, *, device: str | torch.device = "cpu", kwargs: dict[str, Any] | None = None
) -> tuple[nn.Module, Info]:
    """The model of a run folder, or of a model.safetensors file, in evaluation mode, and its info.

    The info has task, name, kwargs, data, the file's path, and what the task adds; for classification these
    are classes (list of names) and in_chans, for images also mean, std (lists) and img_size.

    Args:
        kwargs: arguments of the model in place of the run's own, where its weights allow that.

    Raises:
        FileNotFoundError: there is no such file, or the folder has no model.safetensors yet.
        ValueError: the file was not written by a run, is damaged, or does not fit the model it names.
    """
    file, weights, metadata = read_weights(path)
    size = sum(weight.numel() for weight in weights.values())
    try:
        info = read_info({k: v for k, v in metadata.items() if k != DIGEST}) | {"path": str(file)}
        check_kwargs(info["kwargs"], values=size)
    except UnknownTask as e:
        raise ValueError(f"{file}: {e}") from e
    except ValueError as e:
        raise ValueError(f"{file} was not written by a run: {e}") from e
    info["kwargs"] |= kwargs or {}
    kwargs = {k: v for k, v in info["kwargs"].items() if k not in FETCHING}
    try:
        with parameters_at_most(len(weights), size):
            model = get_task(info["task"]).build_model(info | {"kwargs": kwargs})
    except Exception as e:  # invalid arguments may raise anything
        what = one_line(f"{info['name']} with {kwargs}: {e}", 1000)
        raise ValueError(f"{file}: cannot create {what}") from e
    load_weights(model, weights, source=file)
    return model.to(device).eval(), info
