from __future__ import annotations

import numpy as np
import pytest
import torch

from pointmix.data.clouds.features import feature_channels, scaled_features, survey, surveyed
from pointmix.data.segment.clouds.config import CloudSettings
from pointmix.data.segment.sample import LabeledCloud
from pointmix.io.errors import UnreadableSample
from pointmix.io.names import feature_name

RNG = np.random.default_rng(0)


def cloud(n: int = 40, **features: np.ndarray) -> LabeledCloud:
    return LabeledCloud(RNG.random((n, 3)), features, np.zeros(n, np.int64))


class Clouds:
    """A source over a list; an error in the list is raised."""

    def __init__(self, *clouds: LabeledCloud | Exception) -> None:
        self.clouds = clouds

    def __len__(self) -> int:
        return len(self.clouds)

    def name(self, index: int) -> str:
        return f"cloud {index}"

    def read(self, index: int) -> LabeledCloud:
        if isinstance(found := self.clouds[index], Exception):
            raise found
        return found


def filled(names: tuple[str, ...], *clouds: LabeledCloud | Exception, **given: float) -> dict[str, float] | None:
    cfg = CloudSettings(features=names, feature_scale=given or None)
    return surveyed(cfg, Clouds(*clouds), range(len(clouds)))[0].feature_scale


def test_features_are_side_by_side_and_divided_by_their_scale():
    a = cloud(rgb=np.full((40, 3), 51, np.uint8), intensity=np.arange(40, dtype=np.uint16))
    found = scaled_features(a, ("intensity", "rgb"), {"rgb": 255, "intensity": 2}, np.array([7, 3]))
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.tensor([[3.5, 0.2, 0.2, 0.2], [1.5, 0.2, 0.2, 0.2]]))
    assert feature_channels(a, ("intensity", "rgb")) == {"intensity": (0, 1), "rgb": (1, 4)}
    assert scaled_features(a, (), {}).shape == (40, 0)


def test_names_of_colors_and_normals():
    assert [feature_name(name) for name in ("Colors", "color", "rgb", "normals", "normal")] == ["rgb"] * 3 + [
        "normal"
    ] * 2
    assert feature_name("scalar_Intensity") == feature_name("Intensity") == "intensity"


@pytest.mark.parametrize(
    "kind, top, scale",
    [
        (np.uint8, 200, 255),
        (np.uint16, 65000, 65535),
        (np.uint16, 255, 255),
        (np.float32, 1, 1),
        (np.float32, 250, 255),
    ],
)
def test_the_scale_of_colors_follows_from_their_range(kind, top, scale):
    dark, light = (cloud(rgb=np.full((40, 3), value, kind)) for value in (0, top))
    assert filled(("rgb",), dark, light) == {"rgb": scale}


def test_normals_keep_their_length_and_others_get_the_standard_deviation():
    a, b = (cloud(normal=RNG.random((40, 3)), height=RNG.random(40) * 7, flat=np.zeros(40)) for _ in "ab")
    scale = filled(("normal", "height", "flat"), a, b)
    both = np.concatenate([a.features["height"], b.features["height"]])
    assert scale == {"normal": 1, "height": pytest.approx(both.std()), "flat": 1}


def test_colors_of_one_range():
    unit, bytes_ = cloud(rgb=np.full((40, 3), 0.5)), cloud(rgb=np.full((40, 3), 128, np.uint8))
    with pytest.raises(ValueError, match="rgb is from 0 to 1 in some clouds and beyond in others"):
        filled(("rgb",), unit, bytes_)
    with pytest.raises(ValueError, match="rgb is of 8 bits in some clouds and beyond 255 in others"):
        filled(("rgb",), bytes_, cloud(rgb=np.full((40, 3), 300, np.uint16)))
    with pytest.raises(ValueError, match="rgb is from 0 to 70000, expected up to 1, 255 or 65535, none negative"):
        filled(("rgb",), cloud(rgb=np.full((40, 3), 70000)))


@pytest.mark.parametrize(
    "colors, scale, message",
    [
        (np.full((4, 3), 65000, np.uint16), 255, "rgb is up to 65000, expected at most 255, as in training"),
        (np.full((4, 3), 200, np.uint8), 1, "rgb is up to 200, expected at most 1, as in training"),
    ],
)
def test_colors_of_another_range_than_in_training_are_refused(colors, scale, message):
    with pytest.raises(UnreadableSample, match=message):
        scaled_features(cloud(4, rgb=colors), ("rgb",), {"rgb": scale})

    with pytest.warns(UserWarning, match="rgb of a cloud is from 0 to 1, in the training data from 0 to 255"):
        scaled_features(cloud(4, rgb=np.full((4, 3), 0.5)), ("rgb",), {"rgb": 255})


def test_a_survey_tells_sizes_extents_and_channels():
    small = LabeledCloud(np.array([[0, 0, 0], [3, 4, 0]]), {"h": np.arange(2), "normal": np.ones((2, 3))}, np.zeros(2))
    large = LabeledCloud(
        np.array([[9, 9, 9], [39, 49, 9], [np.nan, 1, 1]]), {"h": np.ones(3), "normal": np.ones((3, 3))}, 0
    )
    found = survey(CloudSettings(features=("h", "normal")), Clouds(small, large, UnreadableSample("no")), range(3))
    assert found.sizes == [2, 3] and found.extent == pytest.approx((5 + 50) / 2) and found.distance == (4 + 49) / 2
    assert found.channels == {"h": (0, 1), "normal": (1, 4)} and found.failed == ["cloud 2: no"]


def test_scales_follow_from_the_chosen_clouds():
    clouds = Clouds(*(cloud(4, h=np.array([0.0, 0.0, s, s])) for s in (2.0, 200.0, 4.0)))
    cfg, _ = surveyed(CloudSettings(features=("h",)), clouds, np.array([0, 2]))
    assert cfg.feature_scale == {"h": pytest.approx(np.std([0, 0, 2, 2, 0, 0, 4, 4]))}


def test_given_scales_stay():
    assert filled(("height",), cloud(height=np.arange(40)), height=4.0) == {"height": 4.0}
    assert filled((), cloud()) == {}
    with pytest.raises(ValueError, match="data.feature_scale names size, which is not among data.features: height"):
        filled(("height",), cloud(), size=2.0)


def test_unreadable_clouds_are_left_out_of_scales():
    values = np.array([1.0, 3.0, np.nan, np.inf])
    assert filled(("h",), UnreadableSample("broken"), cloud(4, h=values), cloud(4, g=values)) == {"h": 1.0}
    with pytest.raises(ValueError, match="data.features h: no training cloud has them; cloud 1: broken"):
        filled(("h",), UnreadableSample("broken"), UnreadableSample("broken"))


def test_missing_features_are_named_with_those_that_are_there():
    a = cloud(rgb=np.zeros((40, 3)), intensity=np.zeros(40))
    with pytest.raises(UnreadableSample, match="no feature height .*; it has: rgb, intensity"):
        scaled_features(a, ("height",), {"height": 1})
    with pytest.raises(ValueError, match="no training cloud has them; cloud 0: it has no feature height"):
        filled(("height",), a)


def test_features_of_another_length_or_kind_or_not_finite_are_refused():
    bad = cloud(h=np.zeros(39), text=np.full(40, "a"), nan=np.where(np.arange(40) < 3, np.nan, 1))
    with pytest.raises(UnreadableSample, match=r"h is \(39,\) float64, expected numbers \(40,\) or \(40, C\)"):
        scaled_features(bad, ("h",), {"h": 1})
    with pytest.raises(UnreadableSample, match=r"text is \(40,\) <U1"):
        scaled_features(bad, ("text",), {"text": 1})
    with pytest.raises(UnreadableSample, match="nan holds NaN or infinite values at 3 of 40 points"):
        scaled_features(bad, ("nan",), {"nan": 1})
