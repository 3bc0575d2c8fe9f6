"""Labels for files."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.resolve import is_cloud
from pointmix.data.segment.sample import IGNORE
from pointmix.explain.class_colors import class_colors
from pointmix.pointset import PointSet
from pointmix.tasks.protocols import TABLES, Info, Row
from pointmix.tasks.segment import files
from pointmix.tasks.segment.inference import choose
from pointmix.tasks.segment.inference.base import Labels
from pointmix.tasks.segment.outputs import OutputNames, write_image, write_npy, write_ply
from pointmix.tasks.segment.pictures import label_map
from pointmix.utils.atomic import check_place
from pointmix.utils.messages import counted
from pointmix.utils.ranges import COUNT, check_choice

FORMATS = ("ply", "npy")


class SegmentPredictor:
    """The share of the most frequent classes of each file, and with args.out files of labels. Points that `data.nan` or
    args.nan drop have no label, `IGNORE`, and the confidence 0 there.

    Args:
        model: a segmenter in evaluation mode.
        cfg: settings of the data it was trained on.
        args: has the flags of `add_arguments`, and files, the inputs.

    Raises:
        ValueError: a flag is wrong, or does not suit the network.
        OSError: nothing can be written to args.out.
    """

    columns: Sequence[str] = ("class", "share")

    def __init__(self, model: nn.Module, info: Info, cfg: SegmentDataConfig, args: Namespace) -> None:
        COUNT.check("--", topk=args.topk)
        check_choice("--", known=FORMATS, format=args.format)
        self.clouds = is_cloud(cfg)
        self.out = None if str(args.out).lower().endswith(TABLES) else args.out
        if args.confidence and (self.clouds or not self.out):
            raise ValueError("--confidence is for images with --out; files of clouds have it anyway")
        if self.out:
            check_place(Path(self.out, "labels"))
        self.infer = choose.choose_infer(cfg, args)
        self.read = files.FileReader(cfg, info["path"], args, extent=info.get("extent"))
        if args.mask and getattr(self.infer, "resizes", False):
            raise ValueError(
                "--mask with resized images, windows or scales: partial images are taken whole, in their size"
            )
        self.parts = parts_of(info["categories"], args.category)
        self.model, self.classes, self.args = model, info["classes"], args
        self.colors = class_colors(len(self.classes), info["palette"] and [tuple(color) for color in info["palette"]])
        self.names = OutputNames(Path(self.out or "."), args.files)
        self.written, self.unlabeled = 0, 0

    def predict(self, path: str) -> list[Row]:
        found = self.read(path)
        label, confidence = self._labels(found.points)
        if not torch.isfinite(confidence).all():
            raise ValueError(f"the output for {path} is not finite; are the weights whole?")
        if self.out:
            self._write(path, found, label.cpu(), confidence.cpu())
            self.written += 1
        counts = torch.bincount(label, minlength=len(self.classes))
        best = counts.topk(min(self.args.topk, len(counts)))
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        return [(self.classes[k], count / len(label)) for count, k in pairs if count]

    def finish(self) -> list[str]:
        if not self.out:
            return []
        without = f"; {counted(self.unlabeled, 'point')} dropped, label {IGNORE}" if self.unlabeled else ""
        return [f"labels of {counted(self.written, 'file')} in {self.out}{without}"]

    def _labels(self, points: PointSet) -> Labels:
        points = points.to(next(self.model.parameters()).device)
        if self.parts is None:
            return self.infer.labels(self.model, points)
        number, parts = self.parts
        scores = self.infer(self.model, points, torch.tensor([number], device=points.feat.device))[:, parts]
        best, total = scores.max(1), scores.sum(1).clamp(min=torch.finfo(scores.dtype).tiny)  # all may round to 0
        return Labels(torch.tensor(parts, device=scores.device)[best.indices], best.values / total)

    def _write(self, path: str, found: files.Input, label: Int[Tensor, "N"], confidence: Tensor) -> None:
        if found.image is None:
            assert found.pos is not None
            if found.good is not None:  # a row for every point of the file
                self.unlabeled += len(found.good) - len(label)
                label, confidence = _at(found.good, label, IGNORE), _at(found.good, confidence, 0.0)
            (file,) = self.names(path, [f".{self.args.format}"])
            if self.args.format == "npy":
                write_npy(label.numpy(), confidence.numpy(), file)
            else:
                write_ply(found.pos, label.numpy(), confidence.numpy(), self.colors, file)
            return
        sure = found.points.with_feat(confidence[:, None]).to_image()[0][0].numpy() if self.args.confidence else None
        endings = ["_labels.png", "_overlay.png", *(["_confidence.png"] if self.args.confidence else [])]
        out = self.names(path, endings)
        write_image(label_map(found.points, label), sure, found.image, self.classes, self.colors, out)


def _at(good: Bool[np.ndarray, " N"], values: Tensor, fill: float) -> Tensor:
    """The values at the points that are good, `fill` at the others."""
    whole = values.new_full((len(good),), fill)
    whole[torch.from_numpy(good)] = values
    return whole


def parts_of(categories: dict[str, list[int]] | None, name: str | None) -> tuple[int, list[int]] | None:
    """Number and parts of the category of this name; None for networks without categories.

    Raises:
        ValueError: there is no such category, or a name is missing.
    """
    if categories is None:
        if name is not None:
            raise ValueError(f"--category {name}: the network has no categories")
        return None
    if name not in categories:
        given = "no --category" if name is None else f"--category {name!r}"
        raise ValueError(f"{given}: expected one of {', '.join(categories)}")
    return list(categories).index(name), categories[name]
