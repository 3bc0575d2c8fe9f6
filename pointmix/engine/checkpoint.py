"""Files of a run: how each is written, and weights that stand alone. The states of training are in `states`.

A file is written beside its place, fsynced and renamed, so that a kill or a full disk leaves the previous one whole.
Weights are safetensors, with a digest of all that the file says.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

FINAL = "model.safetensors"
DIGEST = "digest"  # key of a file's metadata; its value, JSON as all of them are, begins with SHA256
SHA256 = '"sha256:'


@contextmanager
def replacing(path: str | Path, *, named: Callable[[], str] | None = None) -> Iterator[BinaryIO]:
    """Open a file beside `path` for writing; on success it takes the place of `path`, on failure `path` stays.

    Args:
        named: gives the name that the file takes in place of `path`'s, once all is written.

    Raises:
        OSError: if writing failed; the message says that the previous file is whole.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # another process may write the same file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path if named is None else path.with_name(named()))
    except (OSError, RuntimeError) as e:
        cause: BaseException = e
        while not isinstance(cause, OSError) and cause.__context__ is not None:
            cause = cause.__context__  # torch.save hides a failed write behind an error of its own
        reason = getattr(cause, "strerror", None) or str(cause)
        whole = "; the previous file is whole" if path.exists() else ""
        raise OSError(f"cannot write {path}: {reason.splitlines()[0]}{whole}") from e
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must reach the disk
    finally:
        os.close(folder)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as file:
        file.write(text.encode())


def load_weights(model: nn.Module, weights: dict[str, Tensor], *, source: str | Path) -> None:
    """Load weights that must fit the model exactly; raises what `fit_weights` raises."""
    fit_weights(model, weights, source=source)
    model.load_state_dict(weights)


def fit_weights(model: nn.Module, weights: dict[str, Tensor], *, source: str | Path) -> None:
    """See that weights fit the model exactly.

    Raises:
        ValueError: one line naming the first tensor that is missing, left over or of another shape.
    """
    own = model.state_dict()
    for key, tensor in own.items():
        if key not in weights:
            raise ValueError(f"{source} holds another model: {key} is missing, expected shape {tuple(tensor.shape)}")
        if weights[key].shape != tensor.shape:
            found, expected = tuple(weights[key].shape), tuple(tensor.shape)
            raise ValueError(f"{source} holds another model: {key} has shape {found}, expected {expected}")
    for key in weights:
        if key not in own:
            raise ValueError(f"{source} holds another model: {key} is not in the model, expected {len(own)} tensors")


def save_model(path: str | Path, model: nn.Module, info: dict[str, Any]) -> None:
    """Write weights with what is needed to use them: `info` goes into the file's metadata, each value as JSON.

    `info` has name, kwargs, classes and in_chans, and may have more. Equal weights and info give equal files.
    """
    parts = weights_file(model, info)
    with replacing(path) as file:
        for part in parts:
            file.write(part)


def weights_file(model: nn.Module, info: dict[str, Any]) -> list[bytes | memoryview]:
    """What `save_model` writes, in two parts: a header, which has a digest of all else, and the tensors."""
    weights = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    metadata = {k: json.dumps(v) for k, v in info.items()} | {"format": "pt"}
    metadata[DIGEST] = content_digest(weights, metadata)
    raw = memoryview(safetensors.torch.save(weights))
    end = 8 + int.from_bytes(raw[:8], "little")
    # The library orders metadata by a hash that differs between processes, so its header is written anew.
    header = json.dumps({"__metadata__": dict(sorted(metadata.items()))} | json.loads(bytes(raw[8:end]))).encode()
    header += b" " * (-len(header) % 8)
    return [len(header).to_bytes(8, "little") + header, raw[end:]]


def content_digest(weights: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """A digest of names, kinds, shapes and bytes of all tensors and of all metadata but the digest itself."""
    sha = hashlib.sha256(json.dumps(sorted((k, v) for k, v in metadata.items() if k != DIGEST)).encode())
    for key, tensor in sorted(weights.items()):
        sha.update(f"{key} {tensor.dtype} {list(tensor.shape)} ".encode())
        sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return f'{SHA256}{sha.hexdigest()}"'


def check_digest(weights: dict[str, Tensor], metadata: dict[str, str], *, source: str | Path) -> None:
    """Compare weights and metadata with the digest that the metadata has; files of other programs have none.

    Raises:
        ValueError: they are not what was written; one line.
    """
    marks = [k for k, v in metadata.items() if k == DIGEST or v.startswith(SHA256)]  # either may be what is damaged
    if marks and (marks != [DIGEST] or metadata[DIGEST] != content_digest(weights, metadata)):
        raise ValueError(f"{source} is damaged: it is not what was written (its digest differs)")


def load_run(
    path: str | Path, *, device: str | torch.device = "cpu", kwargs: dict[str, Any] | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """The model of a run folder, or of a model.safetensors file, in evaluation mode, and its info.

    `kwargs` are arguments of the model that take the place of the run's own, where its weights allow that.
    The info has name, kwargs, classes (list of names), in_chans and the file's path; of images also mean, std (lists)
    and img_size.

    Raises:
        FileNotFoundError: if there is no such file, or the folder has no model.safetensors yet.
        ValueError: if the file was not written by a run, is damaged, or does not fit the model it names.
    """
    import pointmix

    path = Path(path)
    file = path / FINAL if path.is_dir() else path
    if not file.exists():
        what = f"the run folder {path} has no {FINAL}; has the run ended?" if path.is_dir() else f"no such file: {file}"
        if seeds := sorted(found.parent.name for found in path.glob(f"seed*/{FINAL}")):
            what = f"{path} holds a run for each of several seeds, expected one of them: {', '.join(seeds)}"
        raise FileNotFoundError(what)
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            weights = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as e:
        raise ValueError(f"{file} is not a safetensors file: {e}") from e
    check_digest(weights, metadata, source=file)
    missing = [k for k in ("name", "kwargs", "classes", "in_chans") if k not in metadata]
    if missing:
        raise ValueError(f"{file} was not written by a run: its metadata has no {missing[0]!r}")
    info = {k: json.loads(v) for k, v in metadata.items() if k not in ("format", DIGEST)} | {"path": str(file)}
    info["kwargs"] |= kwargs or {}
    kwargs = {k: v for k, v in info["kwargs"].items() if k not in ("pretrained", "checkpoint_path")}  # fetch nothing
    given = {"num_classes": len(info["classes"]), "in_chans": info["in_chans"]}
    try:
        model = pointmix.create_model(info["name"], **kwargs | given)
    except (TypeError, RuntimeError) as e:
        raise ValueError(f"{file}: cannot create {info['name']} with {kwargs}: {e}") from e
    load_weights(model, weights, source=file)
    return model.to(device).eval(), info
