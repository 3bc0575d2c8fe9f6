from __future__ import annotations

import pytest

from pointmix.data.cache import Cache
from pointmix.io.errors import UnreadableSample


class Source:
    def __init__(self):
        self.reads = []

    def read(self, index):
        self.reads.append(index)
        if index == 1:
            raise UnreadableSample("torn")
        return [index]

    def name(self, index):
        return str(index)


def test_every_sample_is_read_once_and_damage_is_remembered():
    source = Source()
    cache = Cache(source, [0, 1, 3])
    for _ in range(2):
        assert cache.read(3) == [3] and cache.read(3) is cache.read(3)
        with pytest.raises(UnreadableSample, match="torn"):
            cache.read(1)
    assert source.reads == [0, 1, 3]
    with pytest.raises(KeyError):
        cache.read(2)
