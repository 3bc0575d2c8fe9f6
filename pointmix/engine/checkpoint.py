"""Files of a run: the state from which training goes on, and weights that stand alone.

Nothing here is a trusted pickle: states are read with `weights_only=True`, weights are safetensors. A file is written
beside its place, fsynced and renamed, so that a kill or a full disk leaves the previous one whole.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pointmix.engine.info import FETCHING, check_kwargs, read_info
from pointmix.limits import parameters_at_most, regular_file
from pointmix.messages import one_line

LAST = "checkpoint/last.pt"
BEST = "checkpoint/model-best.safetensors"
FINAL = "model.safetensors"


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file beside `path` for writing; on success it takes the place of `path`, on failure `path` stays.

    Raises:
        OSError: if writing failed; the message says that the previous file is whole.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
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


def plain(value: Any) -> Any:
    """`value` with numpy arrays as tensors and numpy scalars as numbers, so that `weights_only` can read it back."""
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(v) for v in value)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    return value.item() if isinstance(value, np.generic) else value


def save_state(path: str | Path, state: dict[str, Any]) -> None:
    """Write a training state of tensors and plain values atomically.

    Raises:
        OSError: if writing failed; the previous file is whole.
    """
    with replacing(path) as file:
        torch.save(plain(state), file)


def load_state(path: str | Path, *, mmap: bool = False) -> dict[str, Any]:
    """Read what `save_state` wrote, onto the CPU; with `mmap` tensors stay in the file until somebody looks at them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a training state.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except OSError:
        raise
    except Exception as e:  # a file of another kind can break the reader in any way
        raise ValueError(f"{path} is not a training state: {(str(e).splitlines() or ['it is empty'])[0]}") from e
    if not isinstance(state, dict) or "model" not in state:
        raise ValueError(f"{path} is not a training state: expected a dict with the key 'model'")
    return state


def load_weights(model: nn.Module, weights: dict[str, Tensor], *, source: str | Path) -> None:
    """Load weights that must fit the model exactly.

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
    model.load_state_dict(weights)


def rng_state() -> dict[str, Any]:
    """The states of python's, numpy's and torch's global random generators, as plain values and tensors."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    state = {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Put the global random generators where `rng_state` found them."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def save_model(path: str | Path, model: nn.Module, info: dict[str, Any]) -> None:
    """Write weights with what is needed to use them: `info` goes into the file's metadata, each value as JSON.

    `info` has name, kwargs, classes and in_chans, and may have more.
    """
    weights = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    metadata = {k: json.dumps(v) for k, v in info.items()}
    with replacing(path) as file:
        file.write(safetensors.torch.save(weights, metadata | {"format": "pt"}))


def load_run(
    path: str | Path, *, device: str | torch.device = "cpu", kwargs: dict[str, Any] | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """The model of a run folder, or of a model.safetensors file, in evaluation mode, and its info.

    `kwargs` are arguments of the model that take the place of the run's own, where its weights allow that.
    The info has name, kwargs, classes (list of names), in_chans and the file's path; of images also mean, std (lists)
    and img_size.

    Raises:
        FileNotFoundError: if there is no such file, or the folder has no model.safetensors yet.
        ValueError: if the file was not written by a run, or does not fit the model it names.
    """
    import pointmix

    path = Path(path)
    file = path / FINAL if path.is_dir() else path
    if not file.exists():
        what = f"the run folder {path} has no {FINAL}; has the run ended?" if path.is_dir() else f"no such file: {file}"
        if seeds := sorted(found.parent.name for found in path.glob(f"seed*/{FINAL}")):
            what = f"{path} holds a run for each of several seeds, expected one of them: {', '.join(seeds)}"
        raise FileNotFoundError(what)
    regular_file(file)
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            weights = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except Exception as e:  # SafetensorError, and others of a header that makes no sense
        raise ValueError(f"{file} is not a safetensors file: {one_line(e)}") from e
    size = sum(weight.numel() for weight in weights.values())
    try:
        info = read_info(metadata) | {"path": str(file)}
        check_kwargs(info["kwargs"], values=size)
    except ValueError as e:
        raise ValueError(f"{file} was not written by a run: {e}") from e
    info["kwargs"] |= kwargs or {}
    kwargs = {k: v for k, v in info["kwargs"].items() if k not in FETCHING}
    given = {"num_classes": len(info["classes"]), "in_chans": info["in_chans"]}
    try:
        with parameters_at_most(len(weights), size):
            model = pointmix.create_model(info["name"], **kwargs | given)
    except Exception as e:  # of arguments that make no sense: any kind
        what = one_line(f"{info['name']} with {kwargs}: {e}", 1000)
        raise ValueError(f"{file}: cannot create {what}") from e
    load_weights(model, weights, source=file)
    return model.to(device).eval(), info
