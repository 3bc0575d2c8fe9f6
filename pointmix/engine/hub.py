"""Sharing trained networks: loading them by name, and writing or uploading what others need of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from torch import nn

from pointmix.engine.card import model_card
from pointmix.engine.checkpoint import FINAL, load_run, save_model
from pointmix.engine.hub_errors import LOG_IN, why_not
from pointmix.engine.inference import open_model
from pointmix.engine.init_sources import HUB, REPOSITORY
from pointmix.engine.recipes import load_yaml
from pointmix.tasks.base import get_task
from pointmix.tasks.protocols import Metrics
from pointmix.utils.atomic import replacing, write_text
from pointmix.utils.json_values import Json
from pointmix.utils.local_paths import PathHider
from pointmix.utils.messages import one_line

PATHS = ("root", "output_dir", "init", "path", "checkpoint")  # settings whose values are paths
FIRST = "clusters.png"  # is shown before other pictures


def from_pretrained(source: str | Path, revision: str | None = None) -> nn.Module:
    """A trained network, in evaluation mode and on the CPU.

    Its attribute `info` is the metadata of its weights: "task", "name", "kwargs", the settings of its "data", and what
    the task adds, such as "classes", "mean", "std" and "img_size" of images. A classifier has `transform`, too, which
    prepares one sample as evaluation does, see `pointmix.tasks.base.Task.transform`:

        model = pointmix.from_pretrained("hf-hub:OWNER/NAME")
        logits = model(model.transform(Image.open("cat.jpg"))[None])  # (1, K)

    Args:
        source: a run folder, a folder that `save_pretrained` wrote, the model.safetensors of either, or, to be
            downloaded, "hf-hub:OWNER/NAME", "hf-hub:OWNER/NAME@REVISION", or "OWNER/NAME" if there is no such path.
        revision: branch, tag or commit of a repository.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: it cannot be downloaded, is damaged, or was not written by a run; one line.
    """
    name = str(source)
    if REPOSITORY.fullmatch(name) and not Path(name).exists():
        name = HUB + name
    if revision is not None:
        if not name.startswith(HUB) or "@" in name:
            raise ValueError(f"{source} with revision {revision}: expected hf-hub:OWNER/NAME with one revision")
        name = f"{name}@{revision}"
    model, info = open_model(run=name)
    model.info = info  # type: ignore[assignment]
    if transform := get_task(info["task"]).transform(info):
        model.transform = transform  # type: ignore[assignment]
    return model


def save_pretrained(
    run: str | Path,
    folder: str | Path,
    *,
    repo_id: str | None = None,
    license: str | None = None,
    pictures: bool = True,
) -> list[Path]:
    """Write what others need of a finished run: its weights, config.yaml, metrics.json, pictures, and a model card.

    Local paths are replaced everywhere by their last part, or by DIR: in the settings (such as data.root), in the names
    of damaged files and in the metadata of the weights. Names of classes are kept, and pictures show samples of the
    test data and their file names.

    Args:
        run: a run folder.
        folder: where to write; files of these names are replaced.
        repo_id: OWNER/NAME under which the card says that it is found.
        license: of the weights, the hub's name of it, such as apache-2.0; None: the card states none.
        pictures: whether pictures are taken.

    Returns:
        The files.

    Raises:
        FileNotFoundError: there is no such run, or it has not ended.
        ValueError: the run is damaged; one line.
        OSError: nothing can be written.
    """
    run, folder = Path(run), Path(folder)
    if repo_id is not None and (not REPOSITORY.fullmatch(repo_id) or "@" in repo_id):
        raise ValueError(f"repository {repo_id!r}, expected OWNER/NAME")
    if run.is_file():
        raise ValueError(f"{run} is a file, expected the folder of a finished run")
    if folder.resolve() == run.resolve():
        raise ValueError(f"{folder} is the run itself, expected another folder")
    model, info = load_run(run)
    del info["path"]
    metrics, config = _read(run / "metrics.json"), _read(run / "config.yaml")
    hider = PathHider([metrics, config, info], keys=PATHS, more=[run])
    shown = sorted(_pictures(run, metrics) if pictures else (), key=lambda name: name != FIRST)
    metrics, public, info = hider.hide(metrics | {"pictures": shown}), hider.hide(config), hider.hide(info)
    changed = [key for key in _changed(config, public) if key != "output_dir"]
    try:
        card = model_card(metrics, info, repo_id=repo_id, flags=changed, pictures=shown, license=license)
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        raise ValueError(
            f"{run}/metrics.json is damaged, or of another version: {type(e).__name__} {one_line(e)}"
        ) from e
    save_model(folder / FINAL, model, info)
    write_text(folder / "config.yaml", yaml.safe_dump(public, sort_keys=False, allow_unicode=True))
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1))
    write_text(folder / "README.md", card)
    for name in shown:
        with replacing(folder / name) as file:
            file.write((run / name).read_bytes())
    return [folder / name for name in (FINAL, "config.yaml", "metrics.json", "README.md", *shown)]


def push_to_hub(
    run: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    license: str | None = None,
    pictures: bool = True,
) -> str:
    """Upload a finished run to the Hugging Face hub in one commit: exactly what `save_pretrained` writes.

    Args:
        run: a run folder.
        repo_id: OWNER/NAME; the repository is made if there is none.
        private: whether a new repository is private; one that exists stays as it is.
        token: of the hub; None: that of `hf auth login` or HF_TOKEN.
        revision: branch, which is made if there is none; None: main.
        commit_message: None: "Upload NAME with pointmix".
        license, pictures: see `save_pretrained`.

    Returns:
        The address of the commit.

    Raises:
        FileNotFoundError: there is no such run, or it has not ended.
        ValueError: the run is damaged, or the hub refuses it; one line.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if not (token or get_token()):
        raise ValueError(f"uploading to {repo_id} needs a token; {LOG_IN}")
    with TemporaryDirectory() as folder:
        files = save_pretrained(run, folder, repo_id=repo_id, license=license, pictures=pictures)
        api = HfApi(token=token)
        message = commit_message or f"Upload {Path(run).resolve().name} with pointmix"
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            added = [CommitOperationAdd(file.name, file) for file in files]
            done = api.create_commit(repo_id, added, commit_message=message, revision=revision)
        except Exception as e:  # of the network, the hub or the name: many kinds
            raise ValueError(f"cannot upload to {repo_id}: {why_not(e)}") from e
    return str(done.commit_url)


def _read(file: Path) -> dict[str, Json]:
    """The content of a run's metrics.json or config.yaml."""
    if not file.is_file():
        raise FileNotFoundError(f"the run folder {file.parent} has no {file.name}; has the run ended?")
    try:
        text = file.read_text(encoding="utf-8")
        value = json.loads(text) if file.suffix == ".json" else load_yaml(text, file.name)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{file} is damaged: {one_line(e)}") from e
    if not isinstance(value, dict):
        raise ValueError(f"{file} is damaged: expected values by name")
    return value


def _pictures(run: Path, metrics: Metrics) -> Iterator[str]:
    """Names of the pictures that the run has."""
    for name in metrics.get("pictures", []):
        if isinstance(name, str) and re.fullmatch(r"[\w-]+\.png", name, re.ASCII) and (run / name).is_file():
            yield name


def _changed(before: dict[str, Json], after: dict[str, Json], prefix: str = "") -> Iterator[str]:
    """Keys, such as data.root, whose values differ."""
    for key, value in before.items():
        if isinstance(value, dict):
            yield from _changed(value, after.get(key, {}), f"{prefix}{key}.")
        elif value != after.get(key):
            yield prefix + key
