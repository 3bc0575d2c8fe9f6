"""Starting from the weights of another network: of another task, with other classes, or from another program."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from pointmix.engine.checkpoint import read_weights
from pointmix.engine.init_inputs import fit_channels, input_layer
from pointmix.engine.init_tables import fit_table
from pointmix.models.weights import read_tensors, reference_name
from pointmix.utils.messages import one_line

FPNS = ("head.fpn.", "neck.")  # of segmenters, of detectors
BACKBONES = ("backbone.body.model.", "backbone.body.", "backbone.")  # of dense networks; one of timm is the body


@dataclass(frozen=True)
class Taken:
    """Which tensors of a file a network took.

    Args:
        source: the file.
        sizes: name -> numbers in the tensor, of the file's tensors under our names, and of the network's.
        places: the name in the file -> that in the network.
        other_shape: names in the file of tensors whose place has another shape.
        other_input: names in the file of first layers that meet other coordinates, and no channel that they know.
        resized: names in the file of tensors that were taken in another shape.
    """

    source: Path
    sizes: tuple[dict[str, int], dict[str, int]]
    places: dict[str, str]
    other_shape: set[str]
    other_input: set[str]
    resized: set[str]

    def table(self) -> Table:
        """A row for each group of tensors: taken, adapted (to other input channels or another size), left out, or as
        initialized."""
        rows: Counter[tuple[str, str, str]] = Counter()
        numbers: Counter[tuple[str, str, str]] = Counter()

        def add(fate: str, name: str, place: str, size: int) -> None:
            rows[row := (fate, _group(name), _group(place))] += 1
            numbers[row] += size

        theirs, ours = self.sizes
        for name, place in self.places.items():
            add("adapted" if name in self.resized else "taken", name, place, ours[place])
        for name in theirs.keys() - self.places.keys():
            shape = "left out, other shape" if name in self.other_shape else "left out"
            add("left out, other coordinates" if name in self.other_input else shape, name, "", theirs[name])
        for place in ours.keys() - set(self.places.values()):
            add("as initialized", "", place, ours[place])
        share = sum(ours[place] for place in self.places.values()) / sum(ours.values())
        table = Table(title=Text(f"{100 * share:.1f} % of the network's numbers are from {self.source}"))
        for column in ("", "in the file", "in the network", "tensors", "numbers"):
            table.add_column(column, justify="right" if column in ("tensors", "numbers") else "left")
        fates = ["taken", "adapted", "left out, other coordinates", "left out, other shape", "left out"]
        fates += ["as initialized"]
        for row in sorted(rows, key=lambda row: (fates.index(row[0]), row[1:])):
            table.add_row(*map(Text, row), f"{rows[row]:,}", f"{numbers[row]:,}")
        return table


def start_from(model: nn.Module, path: str | Path, *, name: str) -> Taken:
    """Copy every tensor of a file that fits into a network, in place.

    The final norm and the stages of a classifier fit the backbone of a segmenter or detector, and the reverse, and the
    FPN of a segmenter fits that of a detector.

    Args:
        path: a run folder or its model.safetensors, or an authors' checkpoint, see `load_reference`.
        name: of the network, in messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or nothing in it fits; one line. The network is then unchanged.
    """
    own = model.state_dict()
    file, weights, in_chans = _read(Path(path), own.keys())
    entry = input_layer(model)
    places: dict[str, str] = {}
    found: dict[str, Tensor] = {}
    other_shape, other_input, resized = set(), set(), set()
    for key, value in weights.items():
        for place in _places(key, weights.keys(), own.keys()) if _is_plain(value) else ():
            if place in found:
                continue
            layer = entry if entry is not None and place == entry.name else None
            if layer is None:
                fitted = _fit(value, own[place])
            else:
                fitted = fit_channels(value, own[place], coords=layer.coords, in_chans=in_chans)
                other_input |= {key} if layer.meets_others(value, in_chans) else set()
            if fitted is None:
                fitted = fit_table(model, place, value, own[place])
            if fitted is None:
                other_shape.add(key)
                continue
            resized |= set() if torch.equal(fitted.flatten(), value.flatten()) else {key}
            places[key], found[place] = place, fitted
            break
    if not any(value.numel() > 1 for value in found.values()):
        first, shape = next(((key, tuple(value.shape)) for key, value in weights.items()), ("nothing", ()))
        what = f"none of its {len(weights)} tensors fits, the first is {one_line(first, 100)} {shape}"
        raise ValueError(f"model.init {file} is of another network than {name}: {what}")
    for key in places:
        if weights[key].is_floating_point() and not weights[key].isfinite().all():
            raise ValueError(f"model.init {file}: {one_line(key, 100)} is not finite")
    model.load_state_dict(found, strict=False)
    sizes = tuple({key: value.numel() for key, value in tensors.items()} for tensors in (weights, own))
    left = other_shape - places.keys()
    return Taken(file, (sizes[0], sizes[1]), places, left, left & other_input, resized)


def _read(path: Path, ours: Collection[str]) -> tuple[Path, dict[str, Tensor], int | None]:
    """The tensors of a file under our names, and its input channels without coordinates: None for
    files of others, -1 if a run does not state them.

    Args:
        ours: the names of the network's tensors.
    """
    if path.is_dir() or path.suffix == ".safetensors" or not path.exists():
        file, weights, metadata = read_weights(path)
        if "task" in metadata:
            channels = metadata.get("in_chans", "")
            return file, weights, int(channels) if channels.isdecimal() else -1
    return path, _renamed(read_tensors(path), ours), None


def _renamed(tensors: dict[str, Tensor], ours: Collection[str]) -> dict[str, Tensor]:
    """Tensors of the authors' networks under our names; others, and those that have a place as they are, keep theirs:
    networks of timm have a patch_embed.proj, too."""
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[int, Tensor]] = {}
    for key, value in tensors.items():
        name, part = (key, None) if _places(key, tensors, ours) else reference_name(key)
        if part is None:
            found[name] = value
            continue
        parts.setdefault(name, {})[part[0]] = value
        if len(parts[name]) == part[1]:
            found[name] = torch.cat([parts[name][i] for i in range(part[1])])
    return found


def _places(name: str, theirs: Collection[str], ours: Collection[str]) -> list[str]:
    """Where a tensor may belong in a network, the likeliest place first.

    Args:
        theirs, ours: the names of all tensors of the file, and of the network.
    """
    flat = re.sub(r"^(\w+)\.(\d+)\.", r"\1_\2.", name)  # timm's name in a network of features: stages.0. is stages_0.
    names = [name, *(f"{prefix}{name}" for prefix in BACKBONES), f"backbone.body.{flat}"]
    names += [name.removeprefix(prefix) for prefix in BACKBONES if name.startswith(prefix)]
    for one, other in (FPNS, FPNS[::-1]):
        names += [other + name.removeprefix(one)] if name.startswith(one) else []
    if re.match(r"norm\.\D", name):
        names.append(f"backbone.norm.{_last_norm(ours)}.{name.removeprefix('norm.')}")
    if name.startswith(last := f"backbone.norm.{_last_norm(theirs)}."):
        names.append(f"norm.{name.removeprefix(last)}")
    return [place for place in dict.fromkeys(names) if place in ours]


def _last_norm(names: Collection[str]) -> int:
    """The last norm of a segmenter's backbone: of the coarsest stage, as the final norm of a classifier."""
    return max((int(found[1]) for name in names if (found := re.match(r"backbone\.norm\.(\d+)\.", name))), default=0)


def _is_plain(value: Tensor) -> bool:
    return value.layout == torch.strided and not (value.is_quantized or value.is_complex() or value.is_meta)


def _fit(value: Tensor, place: Tensor) -> Tensor | None:
    """The value in the shape of its place; a 1x1 convolution is a linear map. None if it does not fit."""
    if value.is_floating_point() != place.is_floating_point():
        return None
    sides = [[side for side in tensor.shape if side != 1] for tensor in (value, place)]
    if value.shape != place.shape and not (value.ndim > place.ndim and sides[0] == sides[1]):
        return None
    return value.reshape(place.shape)


def _group(name: str) -> str:
    """The group of a tensor in the table: stages, a norm of the pyramid, a part of the head."""
    parts = name.split(".")
    deep = 1 + (parts[0] == "backbone" and len(parts) > 2)
    deep += parts[:deep][-1] == "norm" and len(parts) > deep + 1 and parts[deep].isdigit()
    return name if len(parts) <= deep else ".".join([*parts[:deep], "*"])
