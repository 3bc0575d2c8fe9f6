"""Measure trained networks on the test split of an image set, also with some of the points missing.

python scripts/evaluate.py --run RUN                                     # on the data of the run
python scripts/evaluate.py --run RUN --data.root DIR                     # on another copy of it
python scripts/evaluate.py --model coc_tiny --checkpoint FILE --data.source folder --data.root DIR
python scripts/evaluate.py RUN OTHER_RUN --keep 1 .75 .5 .25 .1 --mask pixels --out curve.png
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import sys
import warnings
from pathlib import Path
from typing import Any

from pointmix._main import exit_code


def parse(argv: list[str], data: dict[str, Any] | None = None) -> Any:
    """Flags as a namespace; `data` are defaults for the flags --data.*."""
    from jsonargparse import ArgumentError, ArgumentParser

    from pointmix.data.images import DataConfig

    parser = ArgumentParser(prog="evaluate.py", description=__doc__.split("\n")[0], exit_on_error=False)
    parser.add_argument("runs", nargs="*", type=str, default=[], help="run folders, or the model.safetensors of each")
    parser.add_argument("--run", type=str | None, help="one more run")
    parser.add_argument("--model", type=str | None, help="instead of a run: one of our models or of timm's")
    parser.add_argument("--checkpoint", type=str | None, help="weights for --model")
    help_kwargs = 'other arguments of the model, as {"keep": "occupied", "absent": "nearest"} for partial images'
    parser.add_argument("--kwargs", type=dict[str, Any] | None, help=help_kwargs)
    parser.add_argument("--keep", type=float, nargs="+", help="shares of the points to measure at, for a curve")
    parser.add_argument("--mask", type=str | None, help="what --keep's masks are made of, same as --data.mask")
    parser.add_argument("--batch_size", type=int, default=64, help="images a step")
    parser.add_argument("--device", type=str | None, help="torch device; cuda where there is one")
    parser.add_argument("--out", type=str | None, help="JSON file for the results; with --keep a PNG, CSV and JSON")
    parser.add_class_arguments(DataConfig, "data")
    parser.set_defaults({f"data.{key}": value for key, value in (data or {}).items()})
    try:
        return parser.instantiate(parser.parse_args(argv))
    except (ArgumentError, TypeError) as e:
        raise ValueError(" ".join(str(e).split())) from e


def measure(model: Any, info: dict[str, Any], cfg: Any, *, batch_size: int, device: Any) -> dict[str, Any]:
    """Metrics of one network on the test split of one configuration."""
    from pointmix.data.images import build_test, is_partial, keep_range
    from pointmix.data.partial import partial_points
    from pointmix.engine.evaluate import check_input, evaluate
    from pointmix.tasks.classify import Classify

    test, classes = build_test(cfg, batch_size=batch_size)
    if info["classes"] != classes:
        raise ValueError(
            f"{info['path']} knows {_listed(info['classes'])}, the data has {_listed(classes)}; "
            "expected the same, in the same order"
        )
    check_input(model, info["name"], in_chans=cfg.in_chans, img_size=cfg.img_size)
    task = Classify(len(classes))
    if is_partial(cfg):
        if not hasattr(model, "explain"):
            raise ValueError(f"images with hidden pixels need a model of points; {info['name']} takes whole ones only")
        mode = getattr(model, "coord_mode", "inclusive")
        task = Classify(len(classes), prepare=lambda images: partial_points(images, coord_mode=mode))
    result = evaluate(model, test, task=task, device=device)
    skipped = sorted(test.failed.items())
    low, high = keep_range(cfg)
    about = {"model": info["name"], "weights": info["path"], "keep": low if low == high else [low, high]}
    about |= {"mask": cfg.mask_root or (cfg.mask if low < 1 else None)}
    return {**about, **result, "images": len(test.dataset) - len(skipped), "skipped": [list(f) for f in skipped]}


def main(argv: list[str]) -> int:
    return exit_code(lambda: evaluate(argv))


def evaluate(argv: list[str]) -> None:
    from pointmix.data.images import DataConfig, build_test, resolve
    from pointmix.engine.checkpoint import write_text
    from pointmix.inference import data_config, open_model, pick_device

    args = parse(argv)
    device = pick_device(args.device)
    runs = [*args.runs, *([args.run] if args.run is not None else [])]
    if bool(runs) == (args.model is not None) or (runs and args.checkpoint is not None):
        open_model(run=runs[0] if runs else None, model=args.model, checkpoint=args.checkpoint)  # says what is wrong

    def data(info: dict[str, Any]) -> DataConfig:
        cfg = parse(argv, dataclasses.asdict(data_config(info))).data
        return resolve(cfg if args.mask is None else dataclasses.replace(cfg, mask=args.mask))

    opened: list[tuple[str, Any, dict[str, Any], DataConfig]] = []
    if args.model is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cfg = data(open_model(model=args.model)[1])
        classes = build_test(cfg, batch_size=args.batch_size)[1]
        model, info = open_model(
            model=args.model,
            checkpoint=args.checkpoint,
            num_classes=len(classes),
            kwargs=args.kwargs,
            device=device,
        )
        opened.append((args.model, model, info | {"classes": classes}, cfg))
    for run, name in zip(runs, _names(runs), strict=True):
        model, info = open_model(run=run, kwargs=args.kwargs, device=device)
        opened.append((name, model, info, data(info)))

    results, skipped = [], set()
    for name, model, info, cfg in opened:
        for keep in [cfg.keep] if args.keep is None else args.keep:
            at = resolve(dataclasses.replace(cfg, keep=keep))
            found = measure(model, info, at, batch_size=args.batch_size, device=device)
            results.append({"name": name, **found})
            skipped |= set(map(tuple, found["skipped"]))
    _show(results, curve=args.keep is not None)
    for file, reason in sorted(skipped):
        print(f"skipped {file}: {reason}", file=sys.stderr)
    if args.out and args.keep is None:
        write_text(args.out, json.dumps(results[0] if len(results) == 1 else results, indent=1) + "\n")
        print(f"result in {args.out}")
    elif args.out:
        print("curve in", *_write_curve(Path(args.out), results, chance=1 / len(opened[0][2]["classes"])))


def _names(runs: list[str]) -> list[str]:
    """The folders' own names, where they differ, else the paths as given."""
    names = [Path(run).resolve() for run in runs]
    names = [path.parent.name if path.suffix == ".safetensors" else path.name for path in names]
    return names if len(set(names)) == len(names) else runs


def _show(results: list[dict[str, Any]], *, curve: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    first = results[0]
    images = f"{first['images']} test images"
    if curve:
        names, shares = list(dict.fromkeys(r["name"] for r in results)), sorted({r["keep"] for r in results})[::-1]
        found = {(r["name"], r["keep"]): f"{r['top1']:.2%}" for r in results}
        table = Table("points kept", title=f"top-1 on {images}, {_kind(results)}")
        for share in shares:
            table.add_column(f"{share:.4g}", justify="right")
        for name in names:
            table.add_row(Text(name), *(found[name, share] for share in shares))
    else:
        table = Table(title=Text(f"{first['name']} on {images}" if len(results) == 1 else images))
        columns = ("top-1", "top-5", "loss")
        for column in columns if len(results) == 1 else ("", *columns):
            table.add_column(column, justify="right")
        for r in results:
            row = (f"{r['top1']:.2%}", f"{r['top5']:.2%}", f"{r['loss']:.4f}")
            table.add_row(*(row if len(results) == 1 else (Text(r["name"]), *row)))
    Console().print(table)


def _kind(results: list[dict[str, Any]]) -> str:
    kinds = sorted({r["mask"] for r in results if r["mask"]})
    return f"masks of {', '.join(kinds)}" if kinds else "no masks"


def _write_curve(out: Path, results: list[dict[str, Any]], *, chance: float) -> list[Path]:
    """The curve as PNG, CSV and JSON, named alike."""
    from pointmix.engine.checkpoint import write_text
    from pointmix.explain.kept import draw_kept

    png, table, full = (out.with_suffix(end) for end in (".png", ".csv", ".json"))
    curves: dict[str, list[tuple[float, float]]] = {}
    for r in results:
        curves.setdefault(r["name"], []).append((r["keep"], r["top1"]))
    draw_kept(png, curves, title=_kind(results), chance=chance)
    columns = ("name", "model", "weights", "mask", "keep", "top1", "top5", "loss", "images")
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(results)
    write_text(table, text.getvalue())
    write_text(full, json.dumps(results, indent=1) + "\n")
    return [png, table, full]


def _listed(names: list[str]) -> str:
    return f"{len(names)} classes ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
