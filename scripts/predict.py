"""Say what is in images or clouds, with a trained network.

python scripts/predict.py --run RUN cat.jpg dog.png
python scripts/predict.py --run RUN cat.jpg --mask cat_mask.png --clusters clusters.png
python scripts/predict.py --model coc_tiny --checkpoint FILE cat.jpg
python scripts/predict.py --run RUN_ON_CLOUDS scan.ply other.npy --clusters clusters.png

A file that cannot be used is named on stderr and the others go on; the exit code is then 2.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pointmix.utils.cli import exit_code

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from pointmix import PointSet

    Read = Callable[[str], Tensor | PointSet]


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="predict.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="images, or clouds in .ply, .npy, .npz or .h5")
    parser.add_argument("--run", metavar="PATH", help="run folder, or the model.safetensors of one")
    parser.add_argument("--model", metavar="NAME", help="instead of a run: one of our models or of timm's")
    parser.add_argument("--checkpoint", metavar="FILE", help="weights for --model")
    parser.add_argument("--mask", metavar="FILE", help="image of the same size as each image; zero hides a pixel")
    parser.add_argument("--index", type=int, metavar="I", help="which cloud of each file, where it holds many")
    columns = "what columns without a name in a cloud's file are: rgb or normal; the run says which of the two it takes"
    parser.add_argument("--columns", metavar="KIND", help=columns)
    parser.add_argument("--topk", type=int, default=5, metavar="K", help="classes to show for each file (default 5)")
    parser.add_argument("--clusters", metavar="PNG", help="draw what the network clustered into this file")
    parser.add_argument("--device", help="torch device (default: cuda where there is one)")

    def refuse(message: str) -> None:
        raise ValueError(message)

    parser.error = refuse
    return parser.parse_args(argv)


def predict(args: argparse.Namespace) -> None:
    import torch
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pointmix.engine.inference import open_model, pick_device
    from pointmix.utils.atomic import check_place
    from pointmix.utils.messages import is_out_of_memory, one_line

    if args.clusters:
        check_place(args.clusters)
    if args.topk < 1:
        raise ValueError(f"--topk must be at least 1, got {args.topk}")
    device = pick_device(args.device)
    model, info = open_model(run=args.run, model=args.model, checkpoint=args.checkpoint, device=device)
    read, classes = (images if "img_size" in info["data"] else clouds)(args, model, info), info["classes"]

    table = Table("file", "class", "probability")
    table.columns[0].overflow = table.columns[1].overflow = "fold"
    table.columns[2].justify = "right"
    done, inputs = [], []  # the files with a prediction, and what is drawn of them
    for path in args.files:
        try:
            x = read(path)
            with torch.inference_mode():
                logits = model(x.to(device))[0].float()
            if not torch.isfinite(logits).all():
                raise ValueError(f"the output for {path} is not finite; are the weights whole?")
        except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as e:
            no_memory = is_out_of_memory(e)
            if isinstance(e, RuntimeError) and not no_memory:
                raise
            why = "it needs more memory than there is" if no_memory else str(e)
            why = why if path in why else f"{path}: {why}"
            if len(args.files) == 1:
                raise ValueError(why) from e
            print("error:", one_line(why, 4000), file=sys.stderr)
            continue
        done.append(path)
        inputs += [x] if args.clusters else []
        best = logits.softmax(0).topk(min(args.topk, len(logits)))
        for rank, (chance, label) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            table.add_row(Text(path if rank == 0 else ""), Text(one_line(classes[label])), f"{chance:.1%}")
        table.add_section()
    if done:
        Console().print(table)
    if done and args.clusters:
        draw(args, model, info, [x.to(device) for x in inputs], names=[Path(path).name for path in done])
        print(f"clusters in {args.clusters}")
    if failed := len(args.files) - len(done):
        raise ValueError(f"{failed} of {len(args.files)} files have no prediction")


def images(args: argparse.Namespace, model: nn.Module, info: dict[str, Any]) -> Read:
    """What makes of a file what the network takes, (1, C, S, S) or with a mask the visible pixels."""
    import pointmix
    from pointmix.engine.inference import data_config, masked_image, whole_image
    from pointmix.io import read_image, read_mask

    cfg = data_config(info)
    for flag, given in (("--index", args.index), ("--columns", args.columns)):
        if given is not None:
            raise ValueError(f"{flag} is of clouds, {info['name']} takes images here")
    for flag, given in (("--mask", args.mask), ("--clusters", args.clusters)):
        if given and not hasattr(model, "explain"):
            ours = ", ".join(pointmix.list_models())
            raise ValueError(f"{flag} needs a model of points ({ours}); {info['name']} takes whole images only")
    if args.mask and not Path(args.mask).is_file():
        raise FileNotFoundError(f"no mask file {args.mask}")
    mode = getattr(model, "coord_mode", "inclusive")

    def read(path: str) -> Tensor | PointSet:
        image = read_image(path, cfg.in_chans)
        if not args.mask:
            return whole_image(image, cfg)[None]  # (1, C, S, S)
        try:
            return masked_image(image, read_mask(args.mask, (image.height, image.width)), cfg, coord_mode=mode)
        except ValueError as e:
            raise ValueError(f"{path} with mask: {e}") from e

    return read


def clouds(args: argparse.Namespace, model: nn.Module, info: dict[str, Any]) -> Read:
    """What makes of a file what the network takes."""
    from pointmix.engine.clouds import read_for, seen_by

    if args.mask:
        raise ValueError(f"--mask {args.mask} is of images, {info['path']} takes clouds")
    seen = seen_by(info)
    return lambda path: seen(read_for(info, path, index=args.index, columns=args.columns))


def draw(
    args: argparse.Namespace,
    model: nn.Module,
    info: dict[str, Any],
    inputs: list[Tensor | PointSet],
    names: list[str],
) -> None:
    """Draw the clusters of all files that could be read."""
    import torch

    from pointmix import PointSet
    from pointmix.engine.inference import data_config
    from pointmix.explain import draw_clouds, draw_clusters

    together = PointSet.cat(inputs) if isinstance(inputs[0], PointSet) else torch.cat(inputs)
    if "img_size" not in info["data"]:
        draw_clouds(model, together, args.clusters, titles=names, max_sets=len(inputs))
        return
    cfg = data_config(info)
    look = {"mean": cfg.mean, "std": cfg.std, "classes": info["classes"]}
    draw_clusters(model, together, args.clusters, **look, max_images=len(inputs))


def main(argv: list[str]) -> int:
    return exit_code(lambda: predict(parse(argv)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
