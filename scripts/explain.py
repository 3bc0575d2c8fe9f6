"""Draw what a network clusters in an image, an RGB-D frame or a cloud.

python scripts/explain.py cat.jpg --run RUN --out clusters.png
python scripts/explain.py cat.jpg --mask cat_mask.png --model coc_tiny --checkpoint FILE --out clusters.png
python scripts/explain.py rgb.png --depth depth.png --intrinsics 525 525 319.5 239.5 --out clusters.png
python scripts/explain.py scan.ply --run RUN --out clusters.html
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pointmix.utils.cli import exit_code

if TYPE_CHECKING:
    from torch import nn

COLUMNS = "what columns without a name in a cloud's file are: rgb or normal; the run says which of the two it takes"


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="explain.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", metavar="FILE", help="an image, or a cloud in .ply, .npy, .npz or .h5")
    parser.add_argument("--out", required=True, metavar="PICTURE", help=".png, or for clouds .html to turn by mouse")
    parser.add_argument("--run", metavar="PATH", help="run folder, or the model.safetensors of one")
    parser.add_argument("--model", metavar="NAME", help="instead of a run (default coc_tiny)")
    parser.add_argument("--checkpoint", metavar="FILE", help="weights for --model; else they are random")
    parser.add_argument("--mask", metavar="FILE", help="image of the same size; zero hides a pixel")
    parser.add_argument("--depth", metavar="FILE", help="depth image: 16-bit millimeters, or floats in meters")
    parser.add_argument("--depth-scale", type=float, default=1000.0, metavar="S", help="units a meter (default 1000)")
    parser.add_argument("--intrinsics", type=float, nargs=4, metavar=("FX", "FY", "CX", "CY"), help="of the camera")
    parser.add_argument("--index", type=int, metavar="I", help="which cloud of a file that holds many")
    parser.add_argument("--columns", metavar="KIND", help=COLUMNS)
    parser.add_argument("--up", help="the axis of a cloud that points upwards, such as z or =-z (default y)")
    parser.add_argument("--device", help="torch device (default: cuda where there is one)")

    def refuse(message: str) -> None:
        raise ValueError(message)

    parser.error = refuse
    args = parser.parse_args(argv)
    if args.intrinsics and not args.depth:
        raise ValueError("--intrinsics are of an image with --depth")
    if args.columns and (args.run is None or args.depth):
        raise ValueError("--columns goes with a cloud and a --run, which takes colors, normals or none")
    if args.run is None and args.model is None:
        args.model = "coc_tiny"
    return args


def explain(args: argparse.Namespace) -> None:
    from pointmix.io import is_image
    from pointmix.utils.atomic import check_place

    check_place(args.out)
    if args.depth:
        explain_frame(args)
    elif is_image(args.file):
        explain_image(args)
    else:
        explain_cloud(args)
    print(f"drawn in {args.out}")


def explain_image(args: argparse.Namespace) -> None:
    from pointmix.engine import inference
    from pointmix.engine.checkpoint import load_run
    from pointmix.explain import draw_clusters
    from pointmix.io import read_image, read_mask

    if Path(args.out).suffix == ".html" or args.index is not None or args.columns:
        raise ValueError(f"{args.file} is an image: it has no --index or --columns and is not drawn as .html")
    takes_images = "img_size" in load_run(args.run)[1] if args.run else not args.model.startswith("pointmlp")
    if not takes_images:
        raise ValueError(f"{args.run or args.model} is of clouds and takes no image without --depth")
    device = inference.pick_device(args.device)
    model, info = inference.open_model(run=args.run, model=args.model, checkpoint=args.checkpoint, device=device)
    if not hasattr(model, "explain"):
        raise ValueError(f"{info['name']} does not cluster, expected one of our models, such as coc_tiny")
    cfg = inference.data_config(info)
    image = read_image(args.file, cfg.in_chans)
    if args.mask:
        mask = read_mask(args.mask, (image.height, image.width))
        x = inference.masked_image(image, mask, cfg, coord_mode=model.coord_mode)
    else:
        x = inference.whole_image(image, cfg)[None]  # (1, C, S, S)
    classes = info["classes"] if args.run or args.checkpoint else None
    draw_clusters(model, x.to(device), args.out, mean=cfg.mean, std=cfg.std, classes=classes)


def explain_cloud(args: argparse.Namespace) -> None:
    from pointmix import PointSet
    from pointmix.engine.clouds import read_for, seen_by
    from pointmix.explain import draw_clouds

    if args.run is None or args.mask:
        points = PointSet.from_file(args.file, args.mask, index=args.index)
        model = open_named(args, channels=points.feat.shape[1], dims=points.pos.shape[1])
    else:
        model, info = open_run(args)
        points = seen_by(info)(read_for(info, args.file, index=args.index, columns=args.columns))
    draw_clouds(model, points, args.out, titles=[Path(args.file).name], up=args.up or "y")


def explain_frame(args: argparse.Namespace) -> None:
    from pointmix import PointSet
    from pointmix.engine.clouds import features_of, seen_by
    from pointmix.explain import draw_clouds, draw_frames
    from pointmix.io import read_depth, read_masked_image

    (rgb, mask), depth = read_masked_image(args.file, args.mask, args.index), read_depth(args.depth)
    points = PointSet.from_rgbd(rgb, depth, args.intrinsics, mask, depth_scale=args.depth_scale)
    transform = None
    if args.run is None:
        model = open_named(args, channels=points.feat.shape[1], dims=points.pos.shape[1])
    else:
        model, info = open_run(args)
        features, seen = features_of(info), seen_by(info, keep_all=True)
        if features == "normal":
            raise ValueError(f"{args.run} takes normals; a frame has colors and no normals")

        def transform(points: PointSet) -> PointSet:
            return seen(points if features == "rgb" else points.with_feat(points.feat[:, :0]))

    if Path(args.out).suffix == ".html" or not hasattr(model, "explain"):
        up = args.up or ("-y" if args.intrinsics else "-x")
        points = points if transform is None else transform(points)
        draw_clouds(model, points, args.out, titles=[Path(args.file).name], up=up)
    else:
        more = {"depth_scale": args.depth_scale, "transform": transform}
        draw_frames(model, [rgb], [depth], args.out, args.intrinsics, [mask], **more)


def open_named(args: argparse.Namespace, *, channels: int, dims: int) -> nn.Module:
    """A network by its name, for points with so many features and dimensions."""
    import pointmix
    from pointmix.engine.inference import pick_device

    if args.model not in pointmix.list_models():
        raise ValueError(f"{args.model} takes no clouds, expected one of {', '.join(pointmix.list_models())}")
    model = pointmix.create_model(args.model, in_chans=channels, coord_dims=dims)
    if args.checkpoint:
        pointmix.load_reference(model, args.checkpoint)
    else:
        warnings.warn(f"{args.model} has random weights; give others with --run or --checkpoint", stacklevel=2)
    return model.to(pick_device(args.device))


def open_run(args: argparse.Namespace) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a run on clouds, and what the run says of itself."""
    from pointmix.engine.clouds import features_of
    from pointmix.engine.inference import open_model, pick_device

    model, info = open_model(run=args.run, checkpoint=args.checkpoint, device=pick_device(args.device))
    features_of(info)  # refuses one on images
    return model, info


def main(argv: list[str]) -> int:
    return exit_code(lambda: explain(parse(argv)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
