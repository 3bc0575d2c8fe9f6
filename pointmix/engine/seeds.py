"""One configuration trained with several seeds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from pointmix.engine.config import RunConfig, run_folder
from pointmix.engine.report import show_seeds, spread
from pointmix.engine.train import train
from pointmix.utils.atomic import write_text


def train_all(cfg: RunConfig, *, recipe: str | None = None) -> dict[str, Any]:
    """Train once, or once with each of `cfg.seeds` in a folder of its own, each going on from where it stopped.

    Args:
        cfg: the run.
        recipe: what to say at the start of where the configuration is from.

    Returns:
        What metrics.json holds, or, of several seeds, seeds.json: mean and deviation ("mean", "std", "values") of each
        share in "test" (with `select` test also "last" and "best_on_test").

    Raises:
        What `pointmix.engine.train.train` raises.
    """
    if cfg.seeds is None:
        return train(cfg, recipe=recipe)
    out = Path(run_folder(cfg))
    each = [dataclasses.replace(cfg, seed=seed, seeds=None, out=str(out / f"seed{seed}")) for seed in cfg.seeds]
    runs = [train(one, recipe=recipe) for one in each]
    shares = runs[0]["shares"]
    summary = {"seeds": list(cfg.seeds), "model": runs[0]["model"], "data": runs[0]["data"]}
    summary |= {"select": cfg.select, "shares": shares, "seconds": [run["seconds"] for run in runs]}
    for what in ("test", "last", "best_on_test"):
        if what in runs[0]:
            summary[what] = {name: spread([run[what][name] for run in runs]) for name in shares}
    for way in runs[0]["more_tests"]:
        found = {name: spread([run["more_tests"][way][name] for run in runs]) for name in shares}
        summary.setdefault("more_tests", {})[way] = found
    from accelerate import PartialState

    if PartialState().is_main_process:
        write_text(out / "seeds.json", json.dumps(summary, indent=1))
        show_seeds(summary, out, console=Console(highlight=False))
    return summary
