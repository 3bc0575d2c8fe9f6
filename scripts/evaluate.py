"""Measure a trained network on the test split of an image set.

python scripts/evaluate.py --run RUN                                     # on the data of the run
python scripts/evaluate.py --run RUN --data.root DIR                     # on another copy of it
python scripts/evaluate.py --model coc_tiny --checkpoint FILE --data.source folder --data.root DIR
"""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from typing import Any


def parse(argv: list[str], data: dict[str, Any] | None = None) -> Any:
    """Flags as a namespace; `data` are defaults for the flags --data.*."""
    from jsonargparse import ArgumentError, ArgumentParser

    from pointmix.data.images import DataConfig

    parser = ArgumentParser(prog="evaluate.py", description=__doc__.split("\n")[0], exit_on_error=False)
    parser.add_argument("--run", type=str | None, help="run folder, or the model.safetensors of one")
    parser.add_argument("--model", type=str | None, help="instead of a run: one of our models or of timm's")
    parser.add_argument("--checkpoint", type=str | None, help="weights for --model")
    parser.add_argument("--batch_size", type=int, default=64, help="images a step")
    parser.add_argument("--device", type=str | None, help="torch device; cuda where there is one")
    parser.add_argument("--out", type=str | None, help="also write the result to this JSON file")
    parser.add_class_arguments(DataConfig, "data")
    parser.set_defaults({f"data.{key}": value for key, value in (data or {}).items()})
    try:
        return parser.instantiate(parser.parse_args(argv))
    except (ArgumentError, TypeError) as e:
        raise ValueError(" ".join(str(e).split())) from e


def evaluate(argv: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    import pointmix  # noqa: F401  first: it makes torchvision loadable
    from pointmix.data.images import DataConfig, build_test, resolve
    from pointmix.engine.checkpoint import write_text
    from pointmix.engine.evaluate import check_input
    from pointmix.engine.evaluate import evaluate as measure
    from pointmix.inference import data_config, open_model, pick_device
    from pointmix.tasks.classify import Classify

    args = parse(argv)
    device = pick_device(args.device)

    def data(info: dict[str, Any]) -> DataConfig:
        return resolve(parse(argv, dataclasses.asdict(data_config(info))).data)

    if args.model is not None and args.run is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cfg = data(open_model(model=args.model)[1])
        test, classes = build_test(cfg, batch_size=args.batch_size)
        model, info = open_model(
            model=args.model, checkpoint=args.checkpoint, num_classes=len(classes), device=device
        )
    else:
        model, info = open_model(run=args.run, model=args.model, checkpoint=args.checkpoint, device=device)
        cfg = data(info)
        test, classes = build_test(cfg, batch_size=args.batch_size)
        if info["classes"] != classes:
            raise ValueError(
                f"{info['path']} knows {_listed(info['classes'])}, the data has {_listed(classes)}; "
                "expected the same, in the same order"
            )

    check_input(model, info["name"], in_chans=cfg.in_chans, img_size=cfg.img_size)
    result = measure(model, test, task=Classify(len(classes)), device=device)
    images, skipped = len(test.dataset), sorted(test.failed.items())
    result = {"model": info["name"], "weights": info["path"], **result}
    result |= {"images": images - len(skipped), "skipped": [list(failure) for failure in skipped]}
    table = Table(title=f"{info['name']} on {result['images']} test images")
    for column in ("top-1", "top-5", "loss"):
        table.add_column(column, justify="right")
    table.add_row(f"{result['top1']:.2%}", f"{result['top5']:.2%}", f"{result['loss']:.4f}")
    Console().print(table)
    for file, reason in skipped:
        print(f"skipped {file}: {reason}", file=sys.stderr)
    if args.out:
        write_text(args.out, json.dumps(result, indent=1) + "\n")
        print(f"result in {args.out}")


def _listed(names: list[str]) -> str:
    return f"{len(names)} classes ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def main(argv: list[str]) -> int:
    warnings.showwarning = lambda message, *_: print("warning:", *str(message).split(), file=sys.stderr)
    try:
        evaluate(argv)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as e:
        print("error: " + " ".join(str(e).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
