from __future__ import annotations

import pytest

from pointmix.tasks.class_weights import balanced_weights, class_weights


def test_balanced_weights():
    assert balanced_weights([10, 30, 0]) == [2.0, 40 / 60, 0.0]
    counts = [5, 1, 94]
    assert sum(w * c for w, c in zip(balanced_weights(counts), counts, strict=True)) == pytest.approx(100)
    assert balanced_weights([0, 0]) == [0.0, 0.0]


def test_weights_as_given_and_balanced():
    def refuse():
        raise AssertionError("the training data are not read")

    assert class_weights(None, counts=refuse, classes=2) is None
    assert class_weights((1, 2), counts=refuse, classes=2) == [1.0, 2.0]
    assert class_weights("balanced", counts=lambda: [10, 30, 0], classes=3) == [2.0, 40 / 60, 0.0]
    with pytest.raises(ValueError, match="loss.class_weights has 2 values for 3 classes"):
        class_weights((1, 2), counts=refuse, classes=3)
    with pytest.raises(ValueError, match="loss.class_weights are all 0"):
        class_weights((0, 0), counts=refuse, classes=2)
