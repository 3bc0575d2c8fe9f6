"""Measure trained networks on the test split of their data, images or clouds, also with some of the points missing.

python scripts/evaluate.py --run RUN                                     # on the data of the run
python scripts/evaluate.py --run RUN --data.root DIR                     # on another copy of it
python scripts/evaluate.py --model coc_tiny --checkpoint FILE --data.source folder --data.root DIR
python scripts/evaluate.py RUN OTHER_RUN --keep 1 .75 .5 .25 .1 --mask pixels --out curve.png
python scripts/evaluate.py RUN_ON_CLOUDS --votes 10                      # the mean over ten scalings
python scripts/evaluate.py RUN_ON_CLOUDS --keep 1 .5 .25 --out curve.png # random points left out
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pointmix.utils.cli import exit_code


def parse(argv: list[str], data: Any = None) -> Any:
    """Flags as a namespace; `data` is the configuration that the flags --data.* change, without one they wait."""
    from jsonargparse import ArgumentError, ArgumentParser

    epilog = "Runs on clouds have the flags --data.* of scripts/train_points.py."
    parser = ArgumentParser(prog="evaluate.py", description=__doc__.split("\n")[0], epilog=epilog, exit_on_error=False)
    parser.add_argument("runs", nargs="*", type=str, default=[], help="run folders, or the model.safetensors of each")
    parser.add_argument("--run", type=str | None, help="one more run")
    parser.add_argument("--model", type=str | None, help="instead of a run: one of our models or of timm's")
    parser.add_argument("--checkpoint", type=str | None, help="weights for --model")
    help_kwargs = 'other arguments of the model, as {"keep_cells": "occupied", "absent": "nearest"} for partial images'
    parser.add_argument("--kwargs", type=dict[str, Any] | None, help=help_kwargs)
    parser.add_argument("--keep", type=float, nargs="+", help="shares of the points to measure at, for a curve")
    parser.add_argument("--mask", type=str | None, help="of images: what --keep's masks are made of, as --data.mask")
    parser.add_argument("--votes", type=int | None, help="of clouds: mean of so many votes, on clouds scaled at random")
    parser.add_argument("--batch_size", type=int, default=64, help="images or clouds a step")
    parser.add_argument("--device", type=str | None, help="torch device; cuda where there is one")
    parser.add_argument("--out", type=str | None, help="JSON file for the results; with --keep a PNG, CSV and JSON")
    if data is None and not {"-h", "--help"} & set(argv):
        argv = _without_data(argv)
    else:
        from pointmix.data.images.config import DataConfig

        parser.add_class_arguments(DataConfig if data is None else type(data), "data")
        defaults = {} if data is None else dataclasses.asdict(data)
        parser.set_defaults({f"data.{key}": value for key, value in defaults.items()})
    try:
        return parser.instantiate(parser.parse_args(argv))
    except (ArgumentError, TypeError) as e:
        raise ValueError(" ".join(str(e).split())) from e


def _without_data(argv: list[str]) -> list[str]:
    """All but the flags --data.*, each of which has one value."""
    left, flags = [], iter(argv)
    for flag in flags:
        if not flag.startswith("--data"):
            left.append(flag)
        elif "=" not in flag:
            next(flags, None)
    return left


def main(argv: list[str]) -> int:
    return exit_code(lambda: evaluate(argv))


def evaluate(argv: list[str]) -> None:
    from pointmix.data.images.splits import build_test
    from pointmix.engine.inference import data_config, open_model, pick_device
    from pointmix.utils.atomic import check_place, write_text
    from pointmix.utils.messages import one_line

    args = parse(argv)
    if args.out:
        check_place(args.out)
    device = pick_device(args.device)
    runs = [*args.runs, *([args.run] if args.run is not None else [])]
    if bool(runs) == (args.model is not None) or (runs and args.checkpoint is not None):
        open_model(run=runs[0] if runs else None, model=args.model, checkpoint=args.checkpoint)  # says what is wrong

    opened: list[tuple[str, Any, dict[str, Any], Any]] = []
    if args.model is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cfg = _data(argv, args, data_config(open_model(model=args.model)[1]))
        classes = build_test(cfg, batch_size=args.batch_size)[1]
        given = {"num_classes": len(classes), "kwargs": args.kwargs, "device": device}
        model, info = open_model(model=args.model, checkpoint=args.checkpoint, **given)
        opened.append((args.model, model, info | {"classes": classes}, cfg))
    for run, name in zip(runs, _names(runs), strict=True):
        model, info = open_model(run=run, kwargs=args.kwargs, device=device)
        opened.append((name, model, info, _data(argv, args, data_config(info))))
        if type(opened[-1][-1]) is not type(opened[0][-1]):
            raise ValueError(f"{runs[0]} and {run}: one is of images, one of clouds; expected runs of one kind")

    results, skipped = [], set()
    for name, find in [(entry[0], find) for entry in opened for find in _measures(args, *entry[1:])]:
        results.append({"name": name, **find(batch_size=args.batch_size, device=device)})
        skipped |= set(map(tuple, results[-1]["skipped"]))
    _show(results, curve=args.keep is not None)
    for file, reason in sorted(skipped):
        print("skipped", one_line(f"{file}: {reason}", 4000), file=sys.stderr)
    if args.out and args.keep is None:
        write_text(args.out, json.dumps(results[0] if len(results) == 1 else results, indent=1) + "\n")
        print(f"result in {args.out}")
    elif args.out:
        print("curve in", *_write_curve(Path(args.out), results, chance=1 / len(opened[0][2]["classes"])))


def _data(argv: list[str], args: Any, cfg: Any) -> Any:
    """The data of a run as the flags change them; flags of the other kind of data are refused."""
    from pointmix.data.clouds.config import PointDataConfig
    from pointmix.data.clouds.resolve import resolve as resolve_points
    from pointmix.data.images.resolve import resolve

    cfg = parse(argv, cfg).data
    if isinstance(cfg, PointDataConfig):
        if args.mask is not None:
            raise ValueError(f"--mask {args.mask} is of images; of clouds --keep leaves out random points")
        return resolve_points(cfg)
    if args.votes is not None:
        raise ValueError(f"--votes {args.votes} is of clouds, this is a model of images")
    return resolve(cfg if args.mask is None else dataclasses.replace(cfg, mask=args.mask))


def _measures(args: Any, model: Any, info: dict[str, Any], cfg: Any) -> list[Callable[..., dict[str, Any]]]:
    """What there is to measure of a network, a call for each share of points; wrong shares are refused first."""
    from pointmix.data.clouds.config import PointDataConfig
    from pointmix.data.clouds.resolve import check_keep_ratio
    from pointmix.data.images.resolve import resolve
    from pointmix.engine.measure import measure_clouds, measure_images

    if isinstance(cfg, PointDataConfig):
        shares = args.keep or [1.0]
        for keep in shares:
            check_keep_ratio(keep, cfg)
        votes = 1 if args.votes is None else args.votes
        return [partial(measure_clouds, model, info, cfg, keep=keep, votes=votes) for keep in shares]
    shares = [cfg.keep_ratio] if args.keep is None else args.keep
    settings = [resolve(dataclasses.replace(cfg, keep_ratio=keep)) for keep in shares]
    return [partial(measure_images, model, info, at) for at in settings]


def _names(runs: list[str]) -> list[str]:
    """The folders' own names, where they differ, else the paths as given."""
    names = [Path(run).resolve() for run in runs]
    names = [path.parent.name if path.suffix == ".safetensors" else path.name for path in names]
    return names if len(set(names)) == len(names) else runs


def _kind(results: list[dict[str, Any]]) -> tuple[str, dict[str, str], str]:
    """What the samples are called, the metrics that are shares and their names, and what hides points."""
    from pointmix.tasks import Classify, ClassifyPoints

    if "clouds" in results[0]:
        votes = results[0]["votes"]
        return "clouds", ClassifyPoints.shares, "random points" + (f", {votes} votes" if votes > 1 else "")
    kinds = sorted({r["mask"] for r in results if r["mask"]})
    return "images", Classify.shares, f"masks of {', '.join(kinds)}" if kinds else "no masks"


def _show(results: list[dict[str, Any]], *, curve: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pointmix.engine.report import class_table

    unit, shares, hidden = _kind(results)
    first = results[0]
    count = f"{first[unit]} test {unit}"
    if curve:
        names, kept = list(dict.fromkeys(r["name"] for r in results)), sorted({r["keep"] for r in results})[::-1]
        table = Table("points kept", title=f"{count}, {hidden}")
        for share in kept:
            table.add_column(f"{share:.4g}", justify="right")
        for key, label in list(shares.items())[: 1 if unit == "images" else None]:
            found = {(r["name"], r["keep"]): f"{r[key]:.2%}" for r in results}
            for name in names:
                table.add_row(Text(f"{name}, {label}"), *(found[name, share] for share in kept))
    else:
        votes = f", {first['votes']} votes" if first.get("votes", 1) > 1 else ""
        table = Table(title=Text((f"{first['name']} on {count}" if len(results) == 1 else count) + votes))
        columns = (*shares.values(), "loss")
        for column in columns if len(results) == 1 else ("", *columns):
            table.add_column(column, justify="right")
        for r in results:
            row = (*(f"{r[key]:.2%}" for key in shares), f"{r['loss']:.4f}")
            table.add_row(*(row if len(results) == 1 else (Text(r["name"]), *row)))
    for r in results if "per_class" in first and not curve else ():
        classes = class_table(r, r["classes"], unit)
        classes.title = Text(f"{r['name']}, by class")
        Console().print(classes)
    Console().print(table)


def _write_curve(out: Path, results: list[dict[str, Any]], *, chance: float) -> list[Path]:
    """The curve as PNG, CSV and JSON, named alike."""
    from pointmix.explain.keep_curve import draw_keep_curve
    from pointmix.utils.atomic import write_text

    unit, shares, hidden = _kind(results)
    key, label = next(iter(shares.items()))
    png, table, full = (out.with_suffix(end) for end in (".png", ".csv", ".json"))
    curves: dict[str, list[tuple[float, float]]] = {}
    for r in results:
        curves.setdefault(r["name"], []).append((r["keep"], r[key]))
    draw_keep_curve(png, curves, title=hidden, score=label, chance=chance)
    columns = ("name", "model", "weights", "mask" if unit == "images" else "votes", "keep", *shares, "loss", unit)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(results)
    write_text(table, text.getvalue())
    write_text(full, json.dumps(results, indent=1) + "\n")
    return [png, table, full]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
