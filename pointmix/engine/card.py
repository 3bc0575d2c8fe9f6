"""The model card of a run: README.md of its repository, with metadata that the Hugging Face hub reads."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from pointmix.engine.report import read_scores
from pointmix.tasks.base import get_task
from pointmix.tasks.protocols import Info, Metrics, Score
from pointmix.utils.messages import one_line

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

LIBRARY = "pointmix"
PLACEHOLDER = "OWNER/NAME"  # of a repository that has no name yet
MOST_CLASSES = 100  # that are listed
UNSEEN = "The test data had no part in training or selection."


def model_card(
    metrics: Metrics,
    info: Info,
    *,
    repo_id: str | None,
    flags: Sequence[str],
    pictures: Sequence[str],
    license: str | None,
) -> str:
    """The text of a card.

    Names that come from data, such as those of classes, are escaped: they cannot become Markdown, HTML or YAML.

    Args:
        metrics: content of metrics.json.
        info: metadata of the weights.
        repo_id: OWNER/NAME.
        flags: settings whose values the reader has to give to train it again, such as data.root.
        pictures: names of the files to show.
        license: the hub's name of it, such as apache-2.0; None: none is stated.
    """
    from huggingface_hub import ModelCard, ModelCardData

    task = get_task(info["task"])
    is_image = task.input_kind(info) == "image"
    tag = task.pipeline_tag if is_image else None
    name = (repo_id or f"{metrics['model']['name']}-{metrics['data']}").split("/")[-1]
    data = ModelCardData(
        library_name=LIBRARY,
        license=license,
        pipeline_tag=tag,
        tags=[LIBRARY, task.name, metrics["model"]["name"]],
        model_name=name,
        eval_results=list(_results(metrics, tag or task.name)),
    )
    sections = {
        "Use": _use(info, repo_id or PLACEHOLDER),
        "Results": [*_table(metrics), "", *_selection(metrics)],
        "Training": _training(metrics, task.name, flags),
        "Classes": _classes(info),
        "Pictures": [f"![{escaped(picture)}]({picture})\n" for picture in pictures],
    }
    what = f"The network {escaped(metrics['model']['name'])} with {metrics['parameters']:,} parameters, trained on"
    what += f" {escaped(metrics['data'])} for the task {escaped(task.name)} with {LIBRARY}."
    body = [f"# {escaped(name)}", "", what, ""]
    for title, lines in sections.items():
        body += [f"## {title}", "", *lines, ""] if lines else []
    body += ["## License", "", escaped(license) if license else "None is stated.", ""]
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(body)))


def escaped(text: object) -> str:
    """A text in one line, which Markdown and HTML show as it is."""
    return re.sub(r"([\\`*_\[\]<>|~&$#!:@])", r"\\\1", one_line(text))


def _results(metrics: Metrics, task_type: str) -> Iterator[EvalResult]:
    """The test scores, fractions as in metrics.json."""
    from huggingface_hub import EvalResult

    data = metrics["data"]
    for name, score in read_scores(metrics).items():
        if math.isfinite(metrics["test"][name]):
            yield EvalResult(
                task_type=task_type,
                dataset_type=data,
                dataset_name=data,
                dataset_split="test",
                metric_type=name,
                metric_name=score.label,
                metric_value=metrics["test"][name],
            )


def _use(info: Info, repo_id: str) -> list[str]:
    """How the network is loaded, and what it takes."""
    task = get_task(info["task"])
    x = task.example_input(info)
    if isinstance(x, Tensor):
        takes = f"float32 images of shape (B, {', '.join(map(str, x.shape[1:]))})"
        imports, call = ["from PIL import Image", ""], 'x = model.transform(Image.open("cat.jpg"))[None]'
    else:
        takes = f"a pointmix.PointSet of positions (N, {x.pos.shape[1]}) and features (N, {x.feat.shape[1]})"
        imports, call = [], "x = model.transform(points)"
    is_prepared = task.transform(info) is not None
    return [
        "```python",
        *(imports if is_prepared else []),
        "import pointmix",
        "",
        f'model = pointmix.from_pretrained("hf-hub:{repo_id}")  # in evaluation mode',
        "model.info  # classes, data settings and whatever else prepares its inputs",
        *([call, "y = model(x)"] if is_prepared else []),
        "```",
        "",
        f"It takes {takes}, prepared as in evaluation. The commands prepare files themselves:",
        "",
        "```bash",
        f"pointmix predict --run hf-hub:{repo_id} FILE",
        f"pointmix explain FILE --run hf-hub:{repo_id} --out clusters.png",
        "```",
    ]


def _table(metrics: Metrics) -> Iterator[str]:
    """A row a score, a column a test."""
    scores, validation = read_scores(metrics), (metrics["selected"] or {}).get("val")
    tests: dict[str, Mapping[str, float]] = {_counted("test", metrics): metrics["test"]}
    tests |= {f"test, {name}": result for name, result in metrics["more_tests"].items()}
    if metrics["select"] == "test":
        tests["test, last epoch"] = metrics["last"]
    if validation:
        tests[_counted("validation", metrics)] = validation
    yield f"| | {' | '.join(map(escaped, tests))} |"
    yield "|---|" + "---:|" * len(tests)
    for name, score in scores.items():
        yield f"| {escaped(score.label)} | {' | '.join(_cell(score, name, result) for result in tests.values())} |"


def _cell(score: Score, name: str, result: Mapping[str, float]) -> str:
    return score.text(result[name]) if name in result else ""


def _counted(split: str, metrics: Metrics) -> str:
    count = metrics.get("samples", {}).get(split)
    return f"{split} ({count:,} {metrics['unit']})" if count else split


def _selection(metrics: Metrics) -> list[str]:
    """Which epoch's weights these are, and which data chose them."""
    selected, monitor = metrics["selected"], read_scores(metrics)[metrics["monitor"]]
    epoch = f"The weights are those of epoch {selected['epoch']:g}"
    if metrics["select"] == "test":
        return [f"{epoch}, the best on the test data by {escaped(monitor.label)}: the result is biased upwards."]
    if metrics["select"] == "val" and selected.get("val"):
        best = f"the best by {escaped(monitor.label)} on validation data, which it was not trained on"
        return [f"{epoch}, {best}. {UNSEEN}"]
    return [f"{epoch}, the last. {UNSEEN}"]


def _training(metrics: Metrics, task: str, flags: Sequence[str]) -> list[str]:
    """The command that trains it again, its cost, and the versions of the libraries."""
    given = "".join(f" --{flag} PATH" for flag in flags)
    count = metrics.get("samples", {}).get("training")
    samples = f" of {count:,} {escaped(metrics['unit'])}" if count else ""
    cost = f"Epochs: {metrics['epochs']:g}{samples}, steps: {metrics['steps']:,}, seconds: {metrics['seconds']:,.0f}"
    skipped = f", damaged and left out: {len(metrics['skipped']):,}" if metrics["skipped"] else ""
    return [
        "```bash",
        f"pointmix train --task {task} --config config.yaml{given}",
        "```",
        "",
        f"{cost} on {metrics['processes']} x {escaped(metrics['device'])}{skipped}.",
        "",
        ", ".join(escaped(f"{library} {number}") for library, number in metrics["versions"].items()) + ".",
        "",
        "config.yaml has all settings, metrics.json all results, by epoch.",
    ]


def _classes(info: Info) -> list[str]:
    """Names of the outputs, where the info has them."""
    names = info.get("classes")
    if not isinstance(names, list):
        return []
    more = f" and {len(names) - MOST_CLASSES:,} more" if len(names) > MOST_CLASSES else ""
    return [f"{len(names):,} classes: {', '.join(map(escaped, names[:MOST_CLASSES]))}{more}."]
