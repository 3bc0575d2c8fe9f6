"""Data sets of Hugging Face, hfds/NAME, read by index through timm."""

from __future__ import annotations

import importlib.util
from functools import partial

import numpy as np

from pointmix.data.images.config import DataConfig
from pointmix.data.images.source import ImageSource, register_source
from pointmix.data.images.sources.folder import name_member, read_member


@register_source("hfds/NAME", uses=("input_key", "target_key"))
def open_hfds(config: DataConfig, split: str | None) -> ImageSource:
    """A split of a Hugging Face set; the test split is "validation".

    Raises:
        ValueError: if the split has no class labels.
        ImportError: if the library `datasets` is not installed.
    """
    from timm.data import create_dataset

    name, split = config.source, split or "validation"
    input_key, target_key = config.input_key, config.target_key
    library = importlib.util.find_spec("datasets")
    if library is None or library.origin is None:  # without origin: just a folder of that name in the working directory
        raise ImportError(f"data.source {name!r} needs Hugging Face's library: pip install datasets")
    reader = create_dataset(name, root=config.root, split=split, input_key=input_key, target_key=target_key).reader
    column = reader.dataset.with_format("numpy").select_columns(target_key)
    targets = np.asarray(column[:][target_key], dtype=np.int64)
    names = sorted(reader.class_to_idx, key=reader.class_to_idx.get) or [str(c) for c in range(int(targets.max()) + 1)]
    if targets.min(initial=0) < 0:
        raise ValueError(f"split {split!r} of {name!r} has no labels (column {target_key!r} holds {targets.min()})")
    return ImageSource(names, targets, partial(read_member, reader), partial(name_member, reader))
