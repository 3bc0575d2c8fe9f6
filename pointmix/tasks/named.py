"""Networks by name, with the authors' or timm's weights, in place of a run."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

from timm.models import load_checkpoint as load_timm
from torch import nn

from pointmix.models.weights import load_reference, read_tensors
from pointmix.utils.limits import check_limit, regular_file
from pointmix.utils.messages import one_line


def load_checkpoint(network: nn.Module, name: str, checkpoint: str | None) -> None:
    """Load weights into one of our networks or of timm's; None leaves them random, with a warning.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the weights do not fit the network.
    """
    if checkpoint == "":
        raise ValueError("--checkpoint is empty, expected a file of weights")
    if checkpoint is None:
        warnings.warn(f"{name} has random weights; give trained ones with --checkpoint", stacklevel=3)
    elif hasattr(network, "explain"):
        load_reference(network, checkpoint)
    else:
        _load_timm(network, checkpoint)


def _load_timm(network: nn.Module, checkpoint: str) -> None:
    regular_file(checkpoint, "checkpoint file")
    is_jax = Path(checkpoint).suffix == ".npz"  # the network itself maps its names
    tensors = {} if is_jax else read_tensors(checkpoint)
    try:
        if is_jax:
            with zipfile.ZipFile(checkpoint) as archive:
                size = sum(info.file_size for info in archive.infolist())
            check_limit("ARRAY_BYTES", size, "the archive")
            load_timm(network, checkpoint)
        else:
            network.load_state_dict(tensors)
    except Exception as e:  # weights that do not fit can fail in any way
        raise ValueError(f"{checkpoint} does not fit {type(network).__name__}: {one_line(e)}") from e
