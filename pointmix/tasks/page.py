"""The page of a file, as the flags of explain.py ask for it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from pointmix.explain.page.scene import Scene


def is_page(args: Namespace) -> bool:
    """Whether args.out is a page rather than a picture.

    Raises:
        ValueError: it is a picture, and a flag is for pages; one line.
    """
    if args.out.endswith(".html"):
        return True
    for flag in ("label", "clusters"):
        if getattr(args, flag) is not None:
            raise ValueError(f"--{flag} is for a page, and --out {args.out} does not end in .html")
    return False


def write_page_of(
    args: Namespace, model: nn.Module, scene: Scene, *, name: str, classes: Sequence[str] | None = None
) -> None:
    """Write the page of args.file into args.out.

    Args:
        args: has out, label, clusters, run and checkpoint, and epochs, see `pointmix.engine.epochs.kept_epochs`.
        name: what to call the network.
        classes: names of its outputs, if it was trained.
    """
    from pointmix.explain.page.build import write_explained

    write_explained(
        args.out,
        model,
        scene,
        title=Path(args.file).name,
        subtitle=f"{name}, {args.run or args.checkpoint or 'random weights'}",
        classes=classes,
        truth=args.label,
        clusters=8 if args.clusters is None else args.clusters,
        epochs=args.epochs,
    )
