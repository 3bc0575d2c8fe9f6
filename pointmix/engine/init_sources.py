"""Weights that are not on this computer: names of the Hugging Face hub, and the files downloaded for them."""

from __future__ import annotations

import re
from pathlib import Path

from pointmix.engine.hub_errors import why_not

HUB = "hf-hub:"
FILE = "model.safetensors"
REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?", re.ASCII)


def local_weights(source: str) -> Path:
    """The path of weights: `source` itself, or what is downloaded for it to the cache of the Hugging Face hub.

    Args:
        source: a path, "hf-hub:OWNER/NAME" or "hf-hub:OWNER/NAME@REVISION", or "timm/NAME" for timm's weights, such as
            timm/resnet18.a1_in1k. Of these only safetensors are taken, which hold no code.

    Raises:
        ValueError: they cannot be downloaded; one line.
    """
    is_timm = source.startswith("timm/") and not Path(source).exists()
    if not source.startswith(HUB) and not is_timm:
        return Path(source)
    from huggingface_hub import hf_hub_download

    name, _, revision = source.removeprefix(HUB).partition("@")
    try:
        return Path(hf_hub_download(name, FILE, revision=revision or None))
    except Exception as e:  # of the network, the hub, the name or the disk: many kinds
        raise ValueError(f"cannot download {FILE} of {source}: {why_not(e)}") from e
