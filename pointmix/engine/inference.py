"""A trained network, and image files: what the scripts that evaluate and predict share."""

from __future__ import annotations

import dataclasses
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from PIL import Image
from timm.models import load_checkpoint
from torch import Tensor, nn

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.resolve import resolve as resolve_points
from pointmix.data.images.config import DataConfig
from pointmix.data.images.mask_files import put_mask
from pointmix.data.images.normalize import join_bytes
from pointmix.data.images.partial import MaskedTransform, partial_points
from pointmix.data.images.resolve import resolve
from pointmix.data.images.transforms import eval_transform
from pointmix.engine.checkpoint import load_run
from pointmix.models import create_model
from pointmix.models.weights import load_reference, read_tensors
from pointmix.pointset import PointSet
from pointmix.utils.limits import check_limit, regular_file
from pointmix.utils.messages import is_out_of_memory, one_line


def pick_device(name: str | None) -> torch.device:
    """The device of that name; None takes the GPU where there is one.

    Raises:
        ValueError: if this machine, or this build of torch, has no such device.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, ImportError) as e:
        raise ValueError(f"no device {name!r} here, expected one such as cpu or cuda:0: {e}".splitlines()[0]) from e
    return torch.device(name)


def open_model(
    *,
    run: str | None = None,
    model: str | None = None,
    checkpoint: str | None = None,
    num_classes: int | None = None,
    kwargs: dict[str, Any] | None = None,
    device: str | torch.device = "cpu",
) -> tuple[nn.Module, dict[str, Any]]:
    """A network in evaluation mode, and its info: name, classes, path, and data, the settings of `DataConfig`
    or, of a run on clouds, of `PointDataConfig`.

    Args:
        run: a run folder, or the model.safetensors of one.
        model: instead of a run, the name of one of our models or of timm's.
        checkpoint: weights for `model`, as `load_reference` takes them; without it they are random, with a warning.
        num_classes: of `model`; None leaves its default.
        kwargs: more arguments of the model, in place of the run's own.
    Raises:
        FileNotFoundError: if there is no such run or checkpoint.
        ValueError: unless exactly one of run and model is given, or if the weights do not fit.
    """
    if (run is None) == (model is None):
        raise ValueError("give one of --run and --model")
    if run is not None:
        if checkpoint is not None:
            raise ValueError("--checkpoint goes with --model; a run has its own weights")
        network, info = load_run(run, device=device, kwargs=kwargs)
        if "img_size" not in info and "data" not in info:
            raise ValueError(f"{info['path']} does not say what data it was trained on")
        if "img_size" not in info:
            return network, info
        usual = {"source": "folder"} | {key: info[key] for key in ("img_size", "in_chans", "mean", "std")}
        return network, info | {"data": info.get("data", {}) | usual | {"source": info.get("data", usual)["source"]}}
    network = create_model(model, **({} if num_classes is None else {"num_classes": num_classes}), **(kwargs or {}))
    cfg = network.pretrained_cfg
    if not cfg.get("input_size"):
        raise ValueError(f"{model} takes point clouds, expected a model of images, or a run on clouds with --run")
    if checkpoint == "":
        raise ValueError("--checkpoint is empty, expected a file of weights")
    if checkpoint is None:
        warnings.warn(f"{model} has random weights; give trained ones with --checkpoint", stacklevel=2)
    elif hasattr(network, "explain"):
        load_reference(network, checkpoint)
    else:
        _load_timm(network, checkpoint)
    data = {"source": "folder", "in_chans": cfg["input_size"][0], "img_size": cfg["input_size"][-1]}
    data |= {key: cfg[key] for key in ("mean", "std", "crop_pct", "interpolation")}
    info = {"name": model, "classes": _class_names(network.num_classes), "data": data, "path": checkpoint}
    return network.to(device).eval(), info


def _load_timm(network: nn.Module, checkpoint: str) -> None:
    regular_file(checkpoint, "checkpoint file")
    of_jax = Path(checkpoint).suffix == ".npz"  # the network itself knows what is what in it
    tensors = {} if of_jax else read_tensors(checkpoint)
    try:
        if of_jax:
            with zipfile.ZipFile(checkpoint) as archive:
                held = sum(info.file_size for info in archive.infolist())
            check_limit("ARRAY_BYTES", held, "the archive")
            load_checkpoint(network, checkpoint)
        else:
            network.load_state_dict(tensors)
    except Exception as e:  # what does not fit can fail in any way
        raise ValueError(f"{checkpoint} does not fit {type(network).__name__}: {one_line(e)}") from e


def _class_names(number: int) -> list[str]:
    if number != 1000:
        return [f"class {i}" for i in range(number)]
    from timm.data import ImageNetInfo

    names = ImageNetInfo("imagenet-1k")
    return [names.index_to_description(i).split(",")[0] for i in range(number)]


def data_config(info: dict[str, Any]) -> DataConfig | PointDataConfig:
    """The data settings under which the network was trained, complete.

    Raises:
        ValueError: if they are not settings of this version.
    """
    of_images = "img_size" in info["data"]
    known = {field.name for field in dataclasses.fields(DataConfig if of_images else PointDataConfig)}
    unknown = sorted(set(info["data"]) - known)
    if unknown:
        raise ValueError(f"{info['path']}: unknown data setting {unknown[0]!r}; expected one of {', '.join(known)}")
    data = info["data"] | {"download": False} if of_images else info["data"]  # no network unless asked for here
    try:
        return resolve(DataConfig(**data)) if of_images else resolve_points(PointDataConfig(**data))
    except ValueError:
        raise
    except Exception as e:  # of settings that are no settings: any kind
        raise ValueError(f"{info['path']}: its data settings make no sense: {one_line(e)}") from e


def whole_image(image: Image.Image, cfg: DataConfig) -> Float[Tensor, "C S S"]:
    """The image resized, cropped and normalized as in evaluation."""
    return _transformed(eval_transform(cfg), image, cfg)[0]


def masked_image(
    image: Image.Image, mask: Bool[Tensor, "H W"], cfg: DataConfig, *, coord_mode: str = "inclusive"
) -> PointSet:
    """The visible pixels of the image, resized, cropped and normalized as in evaluation.

    Args:
        coord_mode: the model's, see `PointSet.from_image`.
    Raises:
        ValueError: if the crop holds no visible pixel.
    """
    transform = MaskedTransform(eval_transform(cfg).transforms, side=None)
    return partial_points(_transformed(transform, put_mask(image, mask), cfg), coord_mode=coord_mode)


def _transformed(transform: Callable[[Image.Image], Any], image: Image.Image, cfg: DataConfig) -> Tensor:
    try:
        return join_bytes([transform(image)], mean=cfg.mean, std=cfg.std).to("cpu")
    except (MemoryError, RuntimeError) as e:
        if not is_out_of_memory(e):
            raise
        raise ValueError(f"an image of {cfg.img_size}x{cfg.img_size} (data.img_size) does not fit into memory") from e
