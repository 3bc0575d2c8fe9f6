"""The saved states of a run, from which it resumes: the last two, and the best weights that each of them names.

The folder `checkpoint` of a run holds

    state<n>-step<step>-<digest>.pt            the n-th save, which names its best weights
    best-step<step>-<digest>.safetensors       the best weights of that step

where a digest is the start of the file's SHA-256. A save writes the best weights, if they are new, then the state,
which is valid once it is renamed. Then it removes files that neither this state nor the previous one names. Reading
takes the newest state whose digest is right, together with its best weights. States are read with `weights_only=True`,
so no pickle is trusted.
"""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import warnings
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import nn

from pointmix.engine.checkpoint import weights_file
from pointmix.io.torch_files import load_torch
from pointmix.utils.atomic import replacing

FOLDER = "checkpoint"
STATE = re.compile(r"state(\d+)-step(\d+)-([0-9a-f]{16})\.pt")
BEST = re.compile(r"best-step(\d+)-([0-9a-f]{16})\.safetensors")
DIGITS = 16  # of a digest in a file's name


class Saved(NamedTuple):
    """A state in its folder: its number, its file's name and that of its best weights."""

    number: int
    file: str
    best: str | None


class _Digested:
    """Digests what is written to a file, so that it need not be read again."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sha = file, hashlib.sha256()

    def write(self, data: Any) -> int:
        self.sha.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def save_best(folder: Path, model: nn.Module, info: dict[str, Any], *, step: int) -> str:
    """Write the best weights of a run as `checkpoint.save_model` does; returns the file's name.

    Raises:
        OSError: writing failed.
    """
    parts, sha = weights_file(model, info), hashlib.sha256()
    for part in parts:
        sha.update(part)
    name = f"best-step{step}-{sha.hexdigest()[:DIGITS]}.safetensors"
    with replacing(folder / name) as file:
        for part in parts:
            file.write(part)
    return name


def save_state(folder: Path, state: dict[str, Any], *, before: Saved | None = None) -> Saved:
    """Write the next state, of tensors and plain values, and remove all but it and the one `before`.

    Args:
        folder: of the states.
        state: has train_state, with the step, and best_file, the name of its best weights, or None.
        before: the previous state; None for the first.

    Raises:
        OSError: writing failed; the previous states are intact.
    """
    number = 1 if before is None else before.number + 1
    begin = f"state{number}-step{state['train_state']['step']}"
    written: list[_Digested] = []

    def name() -> str:
        return f"{begin}-{written[0].sha.hexdigest()[:DIGITS]}.pt"

    try:
        with replacing(folder / f"{begin}.pt", named=name) as file:
            written.append(_Digested(file))
            torch.save(plain(state), written[0])  # type: ignore[arg-type]  # it needs write and flush alone
    except OSError as e:
        raise OSError(f"{e}; {before.file}, the previous state, is intact" if before else str(e)) from e
    saved = Saved(number, name(), state["best_file"])
    keep = {*saved, *(before or ())}
    for path in folder.iterdir():
        if path.name not in keep and (STATE.fullmatch(path.name) or BEST.fullmatch(path.name)):
            path.unlink(missing_ok=True)
    return saved


def load_state(folder: str | Path, *, quick: bool = False) -> tuple[dict[str, Any], Saved]:
    """The newest intact state, on the CPU. Damaged newer ones are named in a warning.

    Args:
        quick: read no tensors and check no digests: to inspect a run, not to resume it.

    Raises:
        FileNotFoundError: there is no state.
        ValueError: none is intact; one line.
    """
    folder, bad = Path(folder), []
    for path in list_states(folder):
        try:
            if not quick:
                check_file(path)
            state = _read(path, mmap=quick)
            if state["best_file"] is not None and not quick:
                check_file(folder / str(state["best_file"]))
        except (ValueError, OSError) as e:
            bad.append(f"{e}")
            continue
        if bad:
            warnings.warn(f"{'; '.join(bad)}: resuming from the previous state, {path.name}", stacklevel=2)
        return state, Saved(_number(path), path.name, state["best_file"])
    if not bad:
        raise FileNotFoundError(f"no state of a run in {folder}")
    raise ValueError(f"no state in {folder} is intact: {'; '.join(bad)}")


def list_states(folder: Path) -> list[Path]:
    """The files of the states, newest first."""
    return sorted(filter(_number, folder.glob("state*.pt")), key=_number, reverse=True)


def _number(path: Path) -> int:
    """The number of a state, from 1 on; 0 for other files."""
    match = STATE.fullmatch(path.name)
    return int(match[1]) if match else 0


def check_file(path: Path) -> None:
    """Compare a file with the digest in its name.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not what was written; one line.
    """
    match = STATE.fullmatch(path.name) or BEST.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path} is not the name of a state or of its weights")
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            sha.update(chunk)
    if not sha.hexdigest().startswith(match.groups()[-1]):
        raise ValueError(f"{path} is damaged: its digest differs from that in its name")


def best_step(name: str | None) -> int | None:
    """The step of best weights, by their file's name."""
    match = BEST.fullmatch(name or "")
    return int(match[1]) if match else None


def discard(folder: Path) -> None:
    """Remove all states at once: a run killed meanwhile has none to resume from."""
    if folder.exists():
        gone = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(gone, ignore_errors=True)
        folder.rename(gone)
        shutil.rmtree(gone)


def sweep(folder: Path) -> None:
    """Remove half-written files of killed processes, which `replacing` and `discard` name so."""
    for path in folder.glob(".*.tmp"):
        if path.name == f".{FOLDER}.tmp":
            shutil.rmtree(path, ignore_errors=True)
        elif re.fullmatch(r"\..+\.\d+\.tmp", path.name) and path.is_file():
            path.unlink(missing_ok=True)


def _read(path: Path, *, mmap: bool) -> dict[str, Any]:
    try:
        state = load_torch(path, mmap=mmap)
    except ValueError as e:
        raise ValueError(f"{path} is not a training state: {e}") from e
    for key in ("config", "model", "train_state", "best_file"):
        if not isinstance(state, dict) or key not in state:
            raise ValueError(f"{path} is not a training state: expected a dict with the key {key!r}")
    return state


def plain(value: Any) -> Any:
    """`value` with numpy arrays as tensors and numpy scalars as numbers, so that `weights_only` can read it back."""
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(v) for v in value)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    return value.item() if isinstance(value, np.generic) else value


def rng_state() -> dict[str, Any]:
    """The states of python's, numpy's and torch's global random generators, as plain values and tensors."""
    state_of_numpy: Any = np.random.get_state()
    kind, keys, position, has_gauss, gauss = state_of_numpy
    state = {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore the global random generators from a result of `rng_state`."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
