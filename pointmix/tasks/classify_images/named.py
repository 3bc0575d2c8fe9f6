"""Networks of images by name, with the authors' or timm's weights, in place of a run."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

from timm.models import load_checkpoint as load_timm
from torch import nn

from pointmix.models import create_model
from pointmix.models.weights import load_reference, read_tensors
from pointmix.tasks.protocols import Info
from pointmix.utils.limits import check_limit, regular_file
from pointmix.utils.messages import one_line


def open_named(
    name: str, *, checkpoint: str | None, kwargs: dict[str, Any], classes: list[str] | None
) -> tuple[nn.Module, Info]:
    """A network in evaluation mode, and the info that a run of it would have.

    Args:
        checkpoint: file of its weights; None leaves them random, with a warning.
        kwargs: its arguments.
        classes: names of its outputs; None: as many as it has by default, ImageNet's names for 1000.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: there is no such network, it does not take images, or the weights do not fit it.
    """
    given = {} if classes is None else {"num_classes": len(classes)}
    network = create_model(name, **given, **kwargs)
    cfg: dict[str, Any] = getattr(network, "pretrained_cfg", {})
    if not cfg.get("input_size"):
        expected = "a model of images, or a run on clouds with --run (or, to explain it, --depth for the image)"
        raise ValueError(f"{name} takes point clouds, expected {expected}")
    _load(network, name, checkpoint)
    info = {"in_chans": cfg["input_size"][0], "img_size": cfg["input_size"][-1]}
    info |= {key: list(cfg[key]) for key in ("mean", "std")}
    info["data"] = {key: cfg[key] for key in ("crop_pct", "interpolation")}
    info["classes"] = classes or _class_names(getattr(network, "num_classes", 0))
    return network.eval(), info | {"name": name, "kwargs": kwargs, "path": checkpoint}


def _class_names(number: int) -> list[str]:
    if number != 1000:
        return [f"class {i}" for i in range(number)]
    from timm.data import ImageNetInfo

    names = ImageNetInfo("imagenet-1k")
    return [names.index_to_description(i).split(",")[0] for i in range(number)]


def _load(network: nn.Module, name: str, checkpoint: str | None) -> None:
    if checkpoint == "":
        raise ValueError("--checkpoint is empty, expected a file of weights")
    if checkpoint is None:
        warnings.warn(f"{name} has random weights; give trained ones with --checkpoint", stacklevel=4)
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
