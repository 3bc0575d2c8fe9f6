"""A page of one input and one network, or of several epochs of its training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from pointmix.explain.blocks import evaluating
from pointmix.explain.page.clusters import assignments_of, block_views
from pointmix.explain.page.document import write_page
from pointmix.explain.page.maps import attention_maps, class_maps
from pointmix.explain.page.reduce import MAX_CLUSTERS, reduce_clusters
from pointmix.explain.page.scene import Scene
from pointmix.explain.page.view import BlockView, Epoch, Guess, Lattice, View, to_json
from pointmix.utils.json_values import Json

MAX_BYTES = 2_700_000  # of a page's content; the page itself is to stay below 3 MB
SHOWN_GUESSES = 5

Weights = tuple[str, Callable[[nn.Module], None]]  # a label, and what loads them


def write_explained(
    path: str | Path,
    model: nn.Module,
    scene: Scene,
    *,
    title: str,
    subtitle: str = "",
    classes: Sequence[str] | None = None,
    truth: str | None = None,
    clusters: int = 8,
    epochs: Sequence[Weights] = (),
) -> None:
    """Write a page on which to look at the clusters of a network: block by block, head by head, epoch by epoch.

    Args:
        path: the .html file, overwritten if it exists.
        model: with `explain(x) -> list[Assignment]`, if it clusters; its training mode is restored. It keeps the
            weights of the last epoch.
        scene: of one input, see `pointmix.explain.page.scene`.
        title, subtitle: of the page.
        classes: names of the outputs, if the network classifies.
        truth: the true class, if it is known.
        clusters: to which the clusters of all blocks are reduced.
        epochs: weights to show one after the other; by default those that the model has. Weights that cannot be loaded
            are left out with a warning.

    Raises:
        ValueError: there is no such class, or the number of clusters is out of range.
    """
    if not 2 <= clusters <= MAX_CLUSTERS:
        raise ValueError(f"clusters must be from 2 to {MAX_CLUSTERS}, got {clusters}")
    if truth is not None and (classes is None or truth not in classes):
        known = "the network does not classify" if classes is None else f"expected one of {_some(classes)}"
        raise ValueError(f"label {truth!r}: {known}")
    found = []
    with evaluating(model), torch.no_grad():
        for label, load in epochs or [("", lambda model: None)]:
            try:
                load(model)
            except (ValueError, OSError) as e:
                warnings.warn(f"{label} is left out: {e}", stacklevel=2)
                continue
            found.append(_epoch(label, model, scene, classes, truth, clusters))
    if not found:
        raise ValueError("none of the weights can be loaded")
    kind = "lattice" if isinstance(scene.points, Lattice) else "cloud"
    view = View(title, subtitle, _notes(scene), truth, kind, scene.points, found)  # type: ignore[arg-type]
    write_page(path, fitted(view))


def _epoch(
    label: str, model: nn.Module, scene: Scene, classes: Sequence[str] | None, truth: str | None, clusters: int
) -> Epoch:
    assignments = assignments_of(model, scene.x)
    guess: list[Guess] = []
    if classes is not None:
        probabilities = model(scene.x)[0].float().softmax(0)  # (K,)
        if not probabilities.isfinite().all():
            raise ValueError(f"{label and f'{label}: '}the output is not finite; are the weights whole?")
        best = probabilities.topk(min(SHOWN_GUESSES, len(probabilities))).indices.tolist()
        best += [i for i in [classes.index(truth)] if i not in best] if truth is not None else []
        guess = [Guess(classes[i], float(probabilities[i])) for i in best]
    shown = dict.fromkeys([*(g.name for g in guess[:1]), *([truth] if truth else [])])
    maps = class_maps(scene, model, [(name, list(classes or ()).index(name)) for name in shown])
    return Epoch(
        label,
        guess,
        block_views(scene, model, assignments),
        reduce_clusters(scene, assignments, clusters),
        maps + attention_maps(scene, model),
    )


def fitted(view: View, limit: int = MAX_BYTES) -> dict[str, Json]:
    """The content of a page within `limit` bytes: first with fewer epochs, every second one, then with fewer heads. The
    notes say so."""
    content, whole = to_json(view), view
    while _size(content) > limit and len(view.epochs) > 2:
        notes = [*whole.notes, "Some epochs are left out to keep the page small."]
        view = replace(view, epochs=view.epochs[::-2][::-1], notes=notes)
        content = to_json(view)
    for heads in (4, 1):
        if _size(content) > limit and any(b.center.shape[1] > heads for e in view.epochs for b in e.blocks):
            few = [replace(e, blocks=[_with_heads(b, heads) for b in e.blocks]) for e in view.epochs]
            which = "first head is" if heads == 1 else f"first {heads} heads are"
            note = f"Of each block the {which} shown, to keep the page small."
            content = to_json(replace(view, epochs=few, notes=[*view.notes, note]))
    return content


def _with_heads(block: BlockView, heads: int) -> BlockView:
    weight = block.weight[:, :heads]
    return replace(block, center=block.center[:, :heads], weight=weight, color=block.color[:heads])


def _size(content: dict[str, Json]) -> int:
    return sum(len(array["data"]) for array in content["arrays"])


def _notes(scene: Scene) -> list[str]:
    points = scene.points
    if points.count == points.given:
        return []
    if isinstance(points, Lattice):
        which = f"one row in {points.step} and one column in {points.step}"
        return [f"Shown are {which}: {points.count:,} of {points.given:,} points."]
    return [f"Shown are {points.count:,} of {points.given:,} points, chosen at random."]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
