"""One configuration trained with several seeds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from pointmix.engine.report import mean_and_std, show_seeds
from pointmix.engine.train import train
from pointmix.tasks.config import RunConfig, run_folder
from pointmix.utils.atomic import write_text


def train_all(cfg: RunConfig, *, recipe: str | None = None) -> dict[str, Any]:
    """Train once, or once with each of `cfg.seeds` in a folder of its own; each run resumes where it stopped.

    Args:
        recipe: where the configuration is from, shown at the start.

    Returns:
        The content of metrics.json, or, for several seeds, of seeds.json: "mean", "std" and "values" of each score in
        "test" (with `select` test also in "last" and "best_on_test").

    Raises:
        As `pointmix.engine.train.train`.
    """
    if cfg.seeds is None:
        return train(cfg, recipe=recipe)
    out = Path(run_folder(cfg))
    each = [dataclasses.replace(cfg, seed=seed, seeds=None, output_dir=str(out / f"seed{seed}")) for seed in cfg.seeds]
    runs = [train(one, recipe=recipe) for one in each]
    scores = runs[0]["scores"]
    summary = {"seeds": list(cfg.seeds), "model": runs[0]["model"], "data": runs[0]["data"]}
    summary |= {"select": cfg.select, "scores": scores, "seconds": [run["seconds"] for run in runs]}
    for what in ("test", "last", "best_on_test"):
        if what in runs[0]:
            summary[what] = {name: mean_and_std([run[what][name] for run in runs]) for name in scores}
    for way in runs[0]["more_tests"]:
        values = {name: mean_and_std([run["more_tests"][way][name] for run in runs]) for name in scores}
        summary.setdefault("more_tests", {})[way] = values
    from accelerate import PartialState

    if PartialState().is_main_process:
        write_text(out / "seeds.json", json.dumps(summary, indent=1))
        show_seeds(summary, out, console=Console(highlight=False))
    return summary
