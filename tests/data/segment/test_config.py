from __future__ import annotations

import dataclasses
from typing import get_type_hints

import pytest

from pointmix.data.segment.config import SegmentDataConfig
from pointmix.engine.flags import parse
from pointmix.tasks.segment import SegmentConfig


def test_flags_have_the_types_of_their_fields(capsys):
    names = {field.name for field in dataclasses.fields(SegmentDataConfig)}
    assert names <= get_type_hints(SegmentDataConfig.__init__).keys()
    with pytest.raises(SystemExit):
        parse(["--help"], SegmentConfig)
    text = capsys.readouterr().out
    assert "Unvalidated" not in text and all(f"--data.{name} " in text for name in names)
    data = parse(
        ["--data.source=folder", "--data.label_map={7: 0, 9: -1}", "--data.crop_size=[3, 4]"], SegmentConfig
    ).data
    assert (data.label_map, data.crop_size) == ({7: 0, 9: -1}, (3, 4))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"hflip": 1.5}, "data.hflip must be from 0 to 1, got 1.5"),
        ({"crop_size": (3,)}, "data.crop_size must be 2 values"),
        ({"crop": "disk"}, "data.crop must be one of none, sphere, box"),
        ({"keep_ratio": 0.0}, "data.keep_ratio must be"),
        ({"repeat": 0}, "data.repeat must be at least 1, got 0"),
        ({"cache": 1}, "data.cache must be true or false"),
    ],
)
def test_wrong_values_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        SegmentDataConfig(**settings)
