"""Inference: scores at the original pixels and points of whole images and scenes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pointmix.pointset import PointSet

PART = 1 << 16  # points whose class scores are held at a time
Category = Int[Tensor, "B"] | None


class Labels(NamedTuple):
    """Labels of N points.

    Args:
        label: (N,) int64, the most probable class.
        confidence: (N,) float32, its probability.
    """

    label: Int[Tensor, "N"]
    confidence: Float[Tensor, "N"]


class Infer(ABC):
    """How a trained network is applied to whole images, scenes or objects. Nothing of it is learned."""

    @abstractmethod
    def set_parts(
        self, model: nn.Module, points: PointSet, category: Category
    ) -> Iterator[tuple[slice, Float[Tensor, "n K"]]]:
        """Class probabilities of the points of one set, part after part; each row sums to 1."""

    def parts(
        self, model: nn.Module, points: PointSet, category: Category = None
    ) -> Iterator[tuple[slice, Float[Tensor, "n K"]]]:
        """Slices of the points, in order, and their class probabilities, float32. For metrics and labels of inputs for
        which (N, K) would be too large.

        Args:
            model: a segmenter in evaluation mode, on the device of the points.
            points: B sets, all original points of each.
            category: (B,) categories, for networks that take them.
        """
        first = 0
        for b, one in enumerate(points.unbind() if points.num_sets > 1 else [points]):
            for part, scores in self.set_parts(model, one, None if category is None else category[b : b + 1]):
                yield slice(first + part.start, first + part.stop), scores
            first += len(one.feat)

    @torch.no_grad()
    def __call__(self, model: nn.Module, points: PointSet, category: Category = None) -> Float[Tensor, "N K"]:
        """Class probabilities of all points, float32. Arguments: `parts`."""
        return torch.cat([scores for _, scores in self.parts(model, points, category)])

    @torch.no_grad()
    def labels(self, model: nn.Module, points: PointSet, category: Category = None) -> Labels:
        """Most probable class of each point, without holding the scores of all. Arguments: `parts`."""
        best = [scores.max(1) for _, scores in self.parts(model, points, category)]
        return Labels(torch.cat([b.indices for b in best]), torch.cat([b.values for b in best]))

    def most_likely(self, model: nn.Module, points: PointSet, category: Category = None) -> Int[Tensor, "N"]:
        """The labels alone, for `SegmentationMetric`. Arguments: `parts`."""
        return self.labels(model, points, category).label


def logits_in_parts(
    model: nn.Module, points: PointSet, category: Category = None
) -> Iterator[tuple[slice, Float[Tensor, "n K"]]]:
    """The output of a segmenter, about `PART` points at a time, float32: the last lift is done part by part."""
    coarse, lift = model(points, category, lift=False)
    for part, own in lift.split(PART):
        yield part, own(coarse.feat).float()
