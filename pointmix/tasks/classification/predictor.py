"""Classes and probabilities for files."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pointmix.tasks.protocols import TABLES, Info, Row
from pointmix.utils.atomic import check_place


class ClassPredictor:
    """The most probable classes of each file, and a picture of the clusters of all files.

    Args:
        read: path -> input of the network, of one sample.
        draw: draws inputs, with a name for each, into a file.
        args: has topk; clusters, the file of the picture, and out, that of the table, or None.
    """

    columns: Sequence[str] = ("class", "probability")

    def __init__(
        self,
        model: nn.Module,
        info: Info,
        args: Namespace,
        *,
        read: Callable[[str], Any],
        draw: Callable[[list[Any], list[str], str], None],
    ) -> None:
        if args.topk < 1:
            raise ValueError(f"--topk must be at least 1, got {args.topk}")
        if args.clusters:
            check_place(args.clusters)
        if args.out and not args.out.lower().endswith(TABLES):
            raise ValueError(f"--out {args.out}: expected a file that ends in .csv or .json")
        self.model, self.classes, self.args, self.read, self.draw = model, info["classes"], args, read, draw
        self.device = next(model.parameters()).device
        self.inputs: list[Any] = []  # of the files to draw
        self.names: list[str] = []

    def predict(self, path: str) -> list[Row]:
        x = self.read(path)
        logits = self.model(x.to(self.device))[0].float()  # (K,)
        if not torch.isfinite(logits).all():
            raise ValueError(f"the output for {path} is not finite; are the weights whole?")
        if self.args.clusters:
            self.inputs.append(x)
            self.names.append(Path(path).name)
        best = logits.softmax(0).topk(min(self.args.topk, len(logits)))
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        return [(self.classes[label], probability) for probability, label in pairs]

    def finish(self) -> list[str]:
        if not self.inputs:
            return []
        self.draw([x.to(self.device) for x in self.inputs], self.names, self.args.clusters)
        return [f"clusters in {self.args.clusters}"]
