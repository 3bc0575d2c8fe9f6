"""Train recipes over several seeds and compare them in one table.

pointmix ablate 'ablations/cifar10/*' --minutes 4 --jobs 2 --data.root DIR
pointmix ablate 'ablations/*' --base image/hcformer_tiny_in1k --grad_accum_steps 4 --data.root DIR
pointmix ablate my_recipes/*.yaml --task classify_points --data.root DIR

The recipes come first: files, names that pointmix recipes lists, or patterns of names in quotes. With --base, a recipe
without a data section is a change to that one: its keys replace the base's, those of model.kwargs one by one, and the
outcome is written to OUT/NAME.yaml. Recipes that come to the same are trained once. Flags that are not listed below go
to every training, see pointmix train --help; each training is one process. Run folders are OUT/RECIPE/seedN, the output
of each training is in OUT/RECIPE/seedN.log, and the table is in OUT/ablation.md, .csv and .json. The same command again
skips what is finished and continues with the rest. The exit code is 1 where a training failed; the others are done all
the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shlex
import signal
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pointmix.commands.typed import described, typed
from pointmix.tasks.base import DEFAULT_TASK
from pointmix.utils.cli import exit_code

COMMAND = [sys.executable, "-m", "pointmix"]  # each training is a process of its own
EQUAL_TIME = """equal time: measure the speed of each recipe, as many of it at a time as --jobs says, and give it the
optimizer steps of M minutes, validation and test not counted; its schedule ends with them. Warm-up epochs stay as many
as they are"""


@dataclass(frozen=True)
class Recipe:
    """A YAML file, the flags that all recipes share, the folder of its runs, and the text of a file still to write."""

    file: Path
    flags: tuple[str, ...]
    folder: Path
    text: str | None = None
    task: str = DEFAULT_TASK
    imports: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.file.stem

    def train_flags(self, seed: int) -> list[str]:
        """Flags of one training."""
        own = [f"--seed={seed}", "--seeds=null", f"--output_dir={self.run(seed)}"]
        return [f"--config={self.file}", *self.flags, *own]

    def run(self, seed: int) -> Path:
        """Run folder of one training."""
        return self.folder / f"seed{seed}"

    def config(self, seed: int = 0) -> Any:
        """Configuration of one training."""
        from pointmix.engine.flags import parse
        from pointmix.tasks.base import config_of

        first, *flags = self.train_flags(seed)
        first = first if self.text is None else f"--config={self.text}"
        return parse([first, *flags], config_of(self.task), prog="ablate")


def parse(argv: list[str], prog: str = "pointmix ablate") -> tuple[argparse.Namespace, list[Recipe]]:
    from pointmix.engine.command import TaskParser, import_modules, split_imports
    from pointmix.engine.shipped import find, find_all

    parser = TaskParser(
        prog=prog,
        description=described(__doc__, "pointmix ablate", prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        usage=f"{prog} RECIPE [RECIPE ...] [--seeds N ...] [--base RECIPE] [--jobs N] [--minutes M] [--task TASK] "
        "[--import MODULE] [--out OUT] [flags]",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="default 1 2 3")
    parser.add_argument("--base", metavar="RECIPE", help="the recipe that YAML files without data change")
    jobs = "trainings at a time, with one thread each where there are several (default 1)"
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help=jobs)
    parser.add_argument("--minutes", type=float, metavar="M", help=EQUAL_TIME)
    parser.add_argument("--task", default=DEFAULT_TASK, metavar="TASK", help=f"default {DEFAULT_TASK}")
    parser.add_argument("--out", default="runs/ablation", metavar="OUT", help="default runs/ablation")
    parser.add_argument("--measure", type=int, metavar="K", help=argparse.SUPPRESS)  # write speedK.json of one recipe
    imports = tuple(f"--import={module}" for module in split_imports(argv)[0])
    argv = import_modules(argv)
    first = next((i for i, arg in enumerate(argv) if arg.startswith("-")), len(argv))
    args, flags = parser.parse_known_args(argv[first:])
    files = [file for name in argv[:first] for file in find_all(name)]
    if not files:
        raise ValueError("no recipe; expected YAML files or names before all flags, such as 'ablations/*'")
    if args.jobs < 1 or (args.minutes is not None and not 0 < args.minutes < math.inf):
        raise ValueError(f"--jobs and --minutes must be above 0, got {args.jobs} and {args.minutes}")
    if len(set(args.seeds)) < len(args.seeds):
        raise ValueError(f"--seeds must be different numbers, got {args.seeds}")
    for flag in flags:
        if flag.split("=")[0] in ("--config", "--seed", "--restart", "--output_dir"):
            raise ValueError(f"{flag.split('=')[0]} is set for each training; leave it out")
    base = None if args.base is None else find(args.base)
    for file in files:
        if [f.stem for f in files].count(file.stem) > 1:
            raise ValueError(f"two recipes are called {file.stem}; their run folders would be the same")
    out, recipes = Path(args.out), []
    for file in files:
        text = completed(file, base)
        if text is not None and (out / file.name).resolve() == file.resolve():
            raise ValueError(f"{file} would be overwritten by what it comes to with --base; choose another --out")
        recipes.append(
            Recipe(file if text is None else out / file.name, tuple(flags), out / file.stem, text, args.task, imports)
        )
    return args, recipes


def completed(file: Path, base: Path | None) -> str | None:
    """The recipe that a file's change to the base comes to; None where the file holds a whole one."""
    change = read(file)
    if "data" in change or (base is None and "name" in (change.get("model") or {})):
        return None
    if base is None:
        raise ValueError(f"{file} has neither data nor a model's name: it is a change to a recipe; give that as --base")
    recipe = read(base)
    text = yaml.safe_dump(merged(recipe, change | {"name": file.stem}), sort_keys=False)
    return f"# {file} over {base}\n{text}"


def read(file: Path) -> dict[str, Any]:
    from pointmix.engine.recipes import load_yaml

    recipe = load_yaml(file.read_text(encoding="utf-8"), str(file))
    if not isinstance(recipe, dict):
        raise ValueError(f"{file} holds no keys, expected a recipe such as configs/image/coc_cifar10.yaml")
    return recipe


def merged(base: Any, change: Any) -> Any:
    """What a change leaves of nested dicts."""
    if not (isinstance(base, dict) and isinstance(change, dict)):
        return change
    return base | {key: merged(base[key], value) if key in base else value for key, value in change.items()}


# ---- equal time -------------------------------------------------------------------------------------------------


def fit_steps(recipes: list[Recipe], *, minutes: float, jobs: int) -> tuple[list[Recipe], dict[str, str]]:
    """The recipes with the optimizer steps that take that many minutes, and why others have none.

    Measured speeds are kept, so that the same command continues with the same steps.
    """
    from pointmix.engine.jobs import last_line, run_all

    fitted, failed = [], {}
    for recipe in recipes:
        if known_speed(recipe, jobs) is None:
            print(f"measuring the speed of {recipe.name}", flush=True)
            own = [f"--out={recipe.folder.parent}", f"--jobs={jobs}", f"--task={recipe.task}"]
            command = [*COMMAND, "ablate", str(recipe.file), *recipe.flags, *recipe.imports, *own]
            commands = {k: [*command, f"--measure={k}"] for k in range(jobs)}  # as many at once as train at once
            logs = {k: recipe.folder / f"speed{k}.log" for k in commands}
            for k, code in run_all(commands, logs, jobs=jobs):
                if code:
                    failed[recipe.name] = last_line(logs[k])
        if recipe.name not in failed:
            speed = known_speed(recipe, jobs)
            assert speed is not None  # measured above
            steps = max(round(60 * minutes / speed), 1)
            fitted.append(dataclasses.replace(recipe, flags=(*recipe.flags, f"--steps={steps}")))
    return fitted, failed


def known_speed(recipe: Recipe, jobs: int) -> float | None:
    """Mean seconds a step, if they were measured with the same settings."""
    from pointmix.tasks.config import changed_key

    speeds = []
    for file in (recipe.folder / f"speed{k}.json" for k in range(jobs)):
        try:
            speed = json.loads(file.read_text())
        except (OSError, ValueError):  # not measured yet, or damaged
            return None
        if speed.get("jobs") != jobs or changed_key(speed["config"], recipe.config()) is not None:
            return None
        speeds.append(speed["seconds_per_step"])
    return statistics.mean(speeds)


def measure(recipe: Recipe, number: int, jobs: int) -> None:
    """Write the speed of a recipe; `jobs` processes do so at once."""
    from pointmix.engine.speed import seconds_per_step
    from pointmix.tasks.config import as_plain
    from pointmix.utils.atomic import write_text

    cfg = recipe.config()
    speed = {"seconds_per_step": seconds_per_step(cfg), "jobs": jobs, "config": as_plain(cfg)}
    write_text(recipe.folder / f"speed{number}.json", json.dumps(speed, indent=1))


# ---- trainings --------------------------------------------------------------------------------------------------


def finished(recipe: Recipe, seed: int) -> dict[str, Any] | None:
    """metrics.json of a training that has nothing left to do.

    Raises:
        ValueError: its run folder is of another configuration.
    """
    from pointmix.engine.resume import finished_metrics, previous_state

    cfg, out = recipe.config(seed), recipe.run(seed)
    try:
        state = previous_state(cfg, out, processes=1, quick=True)
    except ValueError as e:
        raise ValueError(f"{str(e).partition('; give')[0]}; give another --out, or remove that folder") from e
    return None if state is None else finished_metrics(cfg, out, state[0])


def ablate(argv: list[str], prog: str = "pointmix ablate") -> list[str]:
    """Train what is not finished and write the table; returns what failed."""
    args, recipes = parse(argv, prog)
    if args.measure is not None:
        measure(recipes[0], args.measure, args.jobs)
        return []

    from pointmix.engine.compare import row, show
    from pointmix.engine.jobs import last_line, run_all
    from pointmix.engine.report import read_scores
    from pointmix.utils.atomic import write_text

    configs = {recipe.name: recipe.config() for recipe in recipes}  # refuses wrong flags before anything is written
    own = [name for name, cfg in configs.items() if cfg.steps is not None]
    if args.minutes is not None and own:
        raise ValueError(f"{own[0]} has its own steps; with --minutes leave them out")
    for recipe in recipes:
        if recipe.text is not None:
            write_text(recipe.file, recipe.text)
    same = equals(configs)
    recipes = [recipe for recipe in recipes if same[recipe.name] == recipe.name]
    failed: list[str] = []

    def fail(what: str, why: str, log: Path) -> None:
        failed.append(what)
        print(f"failed: {what}: {why}; see {log}", file=sys.stderr, flush=True)

    if args.minutes is not None:
        recipes, slow = fit_steps(recipes, minutes=args.minutes, jobs=args.jobs)
        for name, why in slow.items():
            fail(f"speed of {name}", why, Path(args.out) / name / "speed0.log")
    results = {(recipe.name, seed): finished(recipe, seed) for seed in args.seeds for recipe in recipes}
    by_name = {recipe.name: recipe for recipe in recipes}
    todo = [key for key, metrics in results.items() if metrics is None]
    start = [*COMMAND, "train", f"--task={args.task}"]
    commands = {(name, seed): [*start, *by_name[name].imports, *by_name[name].train_flags(seed)] for name, seed in todo}
    logs = {(name, seed): by_name[name].folder / f"seed{seed}.log" for name, seed in todo}
    print(f"{len(todo)} trainings, {len(results) - len(todo)} finished before", flush=True)
    for done, ((name, seed), code) in enumerate(run_all(commands, logs, jobs=args.jobs), start=1):
        what = f"{name}, seed {seed}"
        if code:
            fail(what, last_line(logs[name, seed]), logs[name, seed])
            continue
        metrics = results[name, seed] = finished(by_name[name], seed)
        if metrics is None:
            fail(what, "it stopped without results", logs[name, seed])
            continue
        monitor = metrics["monitor"]
        result = read_scores(metrics)[monitor].text(metrics["test"][monitor])
        print(f"{done}/{len(todo)} {what}: {result}, {metrics['seconds']:.0f} s", flush=True)
    rows = []
    for name, cfg in configs.items():
        trained = same[name]
        runs = {seed: results.get((trained, seed)) for seed in args.seeds}
        title = name if trained == name else f"{name} (is {trained})"
        rows.append(row(title, cfg, runs, Path(args.out) / trained) | {"minutes": args.minutes})
    show(rows, Path(args.out), command=f"{typed(prog)} {shlex.join(argv)}")
    return failed


def equals(configs: dict[str, Any]) -> dict[str, str]:
    """For each recipe the first one with the same training, often itself."""
    from pointmix.tasks.config import as_plain

    first: dict[str, str] = {}
    plain = {name: as_plain(cfg) | {"name": None, "output_dir": None} for name, cfg in configs.items()}
    return {name: first.setdefault(json.dumps(p, sort_keys=True), name) for name, p in plain.items()}


def stop(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def main(argv: list[str], prog: str = "pointmix ablate") -> int:
    signal.signal(signal.SIGTERM, stop)  # as for Ctrl-C, the trainings save their state first
    failed: list[str] = []
    return exit_code(lambda: failed.extend(ablate(argv, prog))) or int(bool(failed))
