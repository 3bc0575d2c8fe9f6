from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch

from pointmix.utils.ranges import (
    COUNT,
    FINITE,
    FRACTION,
    FRACTION_ABOVE_0,
    FRACTION_BELOW_1,
    POSITIVE,
    Range,
    check_choice,
    check_fields,
    range_of,
)

NO_NUMBERS = [math.nan, math.inf, -math.inf, True, None, "1", 1j]


@pytest.mark.parametrize(
    "range, inside, outside, text",
    [
        (COUNT, [1, 7, np.int64(3)], [0, -1, 1.5, 2.0], "at least 1"),
        (POSITIVE, [1, 1e-300, np.float32(0.5)], [0, -1.0], "above 0"),
        (FRACTION, [0, 1, 0.5], [-1e-9, 1.001], "from 0 to 1"),
        (FRACTION_BELOW_1, [0, 0.999], [1], "at least 0 and below 1"),
        (FRACTION_ABOVE_0, [1, 0.001], [0], "above 0 and at most 1"),
        (FINITE, [-1e300, 0], [], "a finite number"),
    ],
)
def test_ends_of_ranges(range, inside, outside, text):
    assert str(range) == text
    range.check(x=tuple(inside))
    for value in inside:
        range.check(x=value)
    for value in [*outside, *NO_NUMBERS]:
        with pytest.raises(ValueError, match=rf"^here: x must be (a (whole )?number )?(a number|{text}), got "):
            range.check("here: ", x=value)
        with pytest.raises(ValueError, match="^x must be"):
            range.check(x=[*inside, value])


def test_messages_name_key_range_and_value():
    for value, text in ((0, "at least 1, got 0"), (1.5, "a whole number at least 1, got 1.5")):
        with pytest.raises(ValueError, match=f"^heads must be {text}$"):
            COUNT.check(dim=4, heads=value)
    for zero in (np.array(0), torch.tensor(0)):
        with pytest.raises(ValueError, match="^heads must be a whole number at least 1, got (array|tensor)"):
            COUNT.check(heads=zero)
    with pytest.raises(ValueError, match=r"^dims must be at least 1, got \(4, 0\)$"):
        COUNT.check(dims=(4, 0))
    with pytest.raises(ValueError, match="^pad must be one of needed, always, got 'no'$"):
        check_choice(known=("needed", "always"), pad="no")
    with pytest.raises(ValueError, match="got 1$"):
        check_choice(known=(True, False), flag=1)


Ratio = Annotated[float, FRACTION_ABOVE_0]


@dataclass(frozen=True)
class Settings:
    count: Annotated[int, COUNT] = 1
    rate: Annotated[float, POSITIVE] | None = None
    pair: tuple[Annotated[float, FRACTION_BELOW_1], Annotated[float, FRACTION_BELOW_1]] = (0.1, 0.9)
    many: tuple[Annotated[int, COUNT], ...] | None = None
    share: (
        Annotated[float, FRACTION_ABOVE_0]
        | tuple[Annotated[float, FRACTION_ABOVE_0], Annotated[float, FRACTION_ABOVE_0]]
    ) = 1.0
    kind: Literal["a", "b"] = "a"
    on: bool = False
    name: str | None = None
    anything: Any = field(default_factory=dict)


@pytest.mark.parametrize(
    "change, text",
    [
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"count": None}, "count must be a whole number at least 1, got None"),
        ({"rate": -1.0}, "rate must be above 0, got -1.0"),
        ({"rate": math.nan}, "rate must be above 0, got nan"),
        ({"pair": (0.5, 1)}, "pair must be at least 0 and below 1, got (0.5, 1)"),
        ({"pair": (0.5,)}, "pair must be 2 values, got (0.5,)"),
        ({"pair": 0.5}, "pair must be a list, got 0.5"),
        ({"many": (1, 0)}, "many must be at least 1, got (1, 0)"),
        ({"share": (0.5, 2)}, "share must be above 0 and at most 1, got (0.5, 2)"),
        ({"share": 0}, "share must be above 0 and at most 1, got 0"),
        ({"many": 3}, "many must be a list, got 3"),
        ({"kind": "c"}, "kind must be one of a, b, got 'c'"),
        ({"on": "no"}, "on must be true or false, got 'no'"),
        ({"name": 3}, "name must be a text, got 3"),
    ],
)
def test_fields_are_as_their_annotations_say(change, text):
    with pytest.raises(ValueError) as e:
        check_fields(Settings(**change), "part.")
    assert str(e.value) == f"part.{text}"


def test_fields_within_their_ranges():
    check_fields(Settings())
    check_fields(Settings(2, 0.1, [0, 0.5], [1, 2], (0.1, 1), "b", True, "n", object()))
    assert range_of(Annotated[int, COUNT] | None) == COUNT and range_of(int | None) is None
    assert range_of(tuple[Annotated[int, Range(3)], ...] | None) == Range(3)
