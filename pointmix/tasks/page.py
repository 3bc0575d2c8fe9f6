"""The page of a file, as the flags of pointmix explain ask for it, and pictures and pages of backbones."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from torch import nn

from pointmix.layouts.cloud import Cloud
from pointmix.pointset import PointSet

if TYPE_CHECKING:
    from pointmix.explain.page.scene import Scene


def is_page(args: Namespace) -> bool:
    """Whether args.out is a page rather than a picture.

    Raises:
        ValueError: it is neither, or a picture, and a flag is for pages; one line.
    """
    if args.out.endswith(".html"):
        return True
    if not args.out.endswith(".png"):
        raise ValueError(f"--out {args.out}: expected a file that ends in .png, a picture, or .html, a page")
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

    index, weights = getattr(args, "index", None), args.run or args.checkpoint
    write_explained(
        args.out,
        model,
        scene,
        title=Path(args.file).name if index is None else f"{Path(args.file).name}, {index}",
        subtitle=f"{name}, {'/'.join(Path(weights).parts[-2:]) if weights else 'random weights'}",
        classes=classes,
        truth=args.label,
        clusters=8 if args.clusters is None else args.clusters,
        epochs=args.epochs,
    )


def explain_backbone(
    args: Namespace,
    model: nn.Module,
    points: PointSet,
    *,
    name: str,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    up: str = "y",
) -> None:
    """Draw the clusters in the backbone of a segmenter or detector into args.out, a picture or a page.

    Args:
        points: the input, one set on a lattice or a cloud.
        name: of the backbone.
        mean, std: of the first channels, to undo the normalization of an image.
        up: of clouds, see `pointmix.explain.draw_clouds`.

    Raises:
        ValueError: the backbone does not cluster, or a flag is wrong.
    """
    from pointmix.models.pointmlp import PointMLP

    backbone, points = cast(nn.Module, model.backbone), points.to(args.device)
    if not hasattr(backbone, "explain") and not isinstance(backbone, PointMLP):
        raise ValueError(f"{args.run} has the backbone {name}, none of whose blocks clusters: there is nothing to draw")
    if mean is not None and std is not None:  # further channels, such as depth, are not drawn
        more = points.feat.shape[1] - len(mean)
        mean, std = [*mean, *[0.0] * more], [*std, *[1.0] * more]
    is_cloud = isinstance(points.layout, Cloud)
    if is_page(args):
        from pointmix.explain.page.scene import cloud_scene, image_scene

        mode = getattr(model, "coord_mode", "inclusive")
        image = partial(image_scene, mean=mean, std=std, coord_mode=mode)
        args.epochs = [(label, partial(_load_whole, load, model)) for label, load in args.epochs]
        write_page_of(args, backbone, cloud_scene(points, up=up) if is_cloud else image(points), name=name)
    elif is_cloud:
        from pointmix.explain import draw_clouds

        draw_clouds(backbone, points, args.out, titles=[Path(args.file).name], up=up)
    else:
        from pointmix.explain import draw_clusters

        draw_clusters(backbone, points, args.out, mean=mean, std=std)


def _load_whole(load: Callable[[nn.Module], None], model: nn.Module, backbone: nn.Module) -> None:
    """Load weights of the whole network, of which the page shows the backbone."""
    load(model)
