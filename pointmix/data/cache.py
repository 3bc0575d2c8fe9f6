"""Samples that are read once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from pointmix.data.source import Readable
from pointmix.io.errors import UnreadableSample
from pointmix.utils.limits import TooLarge

Raw = TypeVar("Raw")


class Cache(Generic[Raw]):
    """The chosen samples of a source, read once, now; forked workers share them."""

    def __init__(self, source: Readable[Raw], indices: Iterable[int]) -> None:
        self.kept: dict[int, Raw | UnreadableSample | TooLarge] = {}
        for index in indices:
            try:
                self.kept[index] = source.read(index)
            except (UnreadableSample, TooLarge) as error:
                self.kept[index] = error

    def read(self, index: int) -> Raw:
        """One sample; raises what reading it raised."""
        found = self.kept[index]
        if isinstance(found, UnreadableSample | TooLarge):
            raise found
        return found
