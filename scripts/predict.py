"""Say what is in images, with a trained network.

python scripts/predict.py --run RUN cat.jpg dog.png
python scripts/predict.py --run RUN cat.jpg --mask cat_mask.png --clusters clusters.png
python scripts/predict.py --model coc_tiny --checkpoint FILE cat.jpg
"""

from __future__ import annotations

import argparse
import sys

from pointmix._main import exit_code


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="predict.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument("--run", metavar="PATH", help="run folder, or the model.safetensors of one")
    parser.add_argument("--model", metavar="NAME", help="instead of a run: one of our models or of timm's")
    parser.add_argument("--checkpoint", metavar="FILE", help="weights for --model")
    parser.add_argument("--mask", metavar="FILE", help="image of the same size as each image; zero hides a pixel")
    parser.add_argument("--topk", type=int, default=5, metavar="K", help="classes to show for each image (default 5)")
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

    import pointmix
    from pointmix.data.partial import read_mask
    from pointmix.inference import data_config, masked_image, open_model, pick_device, read_image, whole_image

    if args.topk < 1:
        raise ValueError(f"--topk must be at least 1, got {args.topk}")
    device = pick_device(args.device)
    model, info = open_model(run=args.run, model=args.model, checkpoint=args.checkpoint, device=device)
    cfg, classes = data_config(info), info["classes"]
    for flag, given in (("--mask", args.mask), ("--clusters", args.clusters)):
        if given and not hasattr(model, "explain"):
            ours = ", ".join(pointmix.list_models())
            raise ValueError(f"{flag} needs a model of points ({ours}); {info['name']} takes whole images only")

    mode, inputs = getattr(model, "coord_mode", "inclusive"), []
    for path in args.images:
        image = read_image(path, cfg.in_chans)
        if args.mask:
            try:
                mask = read_mask(args.mask, (image.height, image.width))
                inputs.append(masked_image(image, mask, cfg, coord_mode=mode).to(device))
            except ValueError as e:
                raise ValueError(f"{path} with mask: {e}") from e
        else:
            inputs.append(whole_image(image, cfg)[None].to(device))  # (1, C, S, S)

    table = Table("image", "class", "probability")
    table.columns[0].overflow = table.columns[1].overflow = "fold"
    table.columns[2].justify = "right"
    for path, x in zip(args.images, inputs, strict=True):
        with torch.inference_mode():
            logits = model(x)[0].float()
        if not torch.isfinite(logits).all():
            raise ValueError(f"the output for {path} is not finite; are the weights whole?")
        best = logits.softmax(0).topk(min(args.topk, len(logits)))
        for rank, (chance, label) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            table.add_row(Text(path if rank == 0 else ""), Text(classes[label]), f"{chance:.1%}")
        table.add_section()
    Console().print(table)

    if args.clusters:
        from pointmix.explain import draw_clusters

        together = pointmix.PointSet.cat(inputs) if args.mask else torch.cat(inputs)
        draw_clusters(
            model, together, args.clusters, mean=cfg.mean, std=cfg.std, classes=classes, max_images=len(inputs)
        )
        print(f"clusters in {args.clusters}")


def main(argv: list[str]) -> int:
    return exit_code(lambda: predict(parse(argv)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
