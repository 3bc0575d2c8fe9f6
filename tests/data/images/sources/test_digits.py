from __future__ import annotations

import numpy as np
import pytest

from pointmix.data.images.source import decode
from pointmix.data.images.sources.digits import MEAN, STD, open_digits


def test_splits_are_disjoint_stratified_and_always_the_same():
    train, test = open_digits("train"), open_digits("test")
    assert (len(train.targets), len(test.targets)) == (1198, 599)
    share = np.bincount(test.targets) / (np.bincount(test.targets) + np.bincount(train.targets))
    assert abs(share - 1 / 3).max() < 0.01
    images = [np.asarray(decode(s, i, "L")).tobytes() for s in (train, test) for i in range(len(s.targets))]
    assert len(set(images)) == 1797
    # counts of the first test labels pin the split
    assert test.targets[:8].tolist() == open_digits("test").targets[:8].tolist()


def test_mean_and_deviation():
    source = open_digits("train")
    values = np.stack([np.asarray(decode(source, i, "L")) for i in range(1198)]) / 255
    assert abs(values.mean() - MEAN[0]) < 0.003 and abs(values.std() - STD[0]) < 0.003


def test_unknown_split():
    with pytest.raises(ValueError, match="not 'valid'"):
        open_digits("valid")
