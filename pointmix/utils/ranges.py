"""Ranges of numeric settings, stated where a setting is declared and checked in one place.

The fields of a configuration carry their ranges as annotations, `lr: Annotated[float, POSITIVE] = 1e-3`, and
`check_fields` compares a configuration with its annotations. Constructors name theirs: `COUNT.check(heads=heads)`.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Range:
    """An interval of numbers. NaN, infinity and booleans are in no range.

    Args:
        low, high: the bounds, inclusive.
        above, below: make `low` or `high` exclusive.
        whole: integers only.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'at least'} {self.low:.10g}"
        high = f"{'below' if self.below else 'at most'} {self.high:.10g}"
        if math.isfinite(self.low) and math.isfinite(self.high) and not (self.above or self.below):
            return f"from {self.low:.10g} to {self.high:.10g}"
        ends = [text for text, end in ((low, self.low), (high, self.high)) if math.isfinite(end)]
        return " and ".join(ends) or f"a {'whole' if self.whole else 'finite'} number"

    def expected(self, value: object) -> str | None:
        """Description of the range if the value is not in it, else None."""
        if isinstance(value, bool) or not isinstance(value, Integral if self.whole else Real):
            return f"a {'whole ' if self.whole else ''}number" + (f" {self}" if self != Range(whole=self.whole) else "")
        number: Any = value  # Real defines no comparison with float
        above_low = number > self.low if self.above else number >= self.low
        below_high = number < self.high if self.below else number <= self.high
        return None if above_low and below_high and math.isfinite(number) else str(self)

    def check(self, where: str = "", /, **settings: object) -> None:
        """Check that settings, numbers or collections of numbers, are in the range.

        Raises:
            ValueError: one line with `where`, the setting's name, the expected range, and the value.
        """
        for name, value in settings.items():
            scalar = isinstance(value, str) or getattr(value, "ndim", 1) == 0
            for number in value if isinstance(value, Iterable) and not scalar else (value,):
                if (expected := self.expected(number)) is not None:
                    raise ValueError(f"{where}{name} must be {expected}, got {value!r}")


COUNT = Range(1, whole=True)
NATURAL = Range(0, whole=True)
SEED = Range(0, 2**32 - 1, whole=True)  # NumPy's range
POSITIVE = Range(0, above=True)
NONNEGATIVE = Range(0)
FINITE = Range()
FRACTION = Range(0, 1)
FRACTION_BELOW_1 = Range(0, 1, below=True)
FRACTION_ABOVE_0 = Range(0, 1, above=True)


def check_choice(where: str = "", /, *, known: Sequence[object], **settings: object) -> None:
    """Check that settings are among the known values.

    Raises:
        ValueError: one line with the setting's name, the known values, and the value.
    """
    for name, value in settings.items():
        if not any(value is one or (type(value) is type(one) and value == one) for one in known):
            raise ValueError(f"{where}{name} must be one of {', '.join(map(str, known))}, got {value!r}")


def check_fields(config: object, section: str = "") -> None:
    """Check the fields of a dataclass against their annotations: ranges, choices, types.

    Args:
        config: fields that are dataclasses or Any are skipped, and dictionaries whose values have no range.
        section: prefix of the field's name in messages, such as "optim.".

    Raises:
        ValueError: one line with the field's name, what was expected, and the value.
    """
    for name, hint in hints(type(config)).items():  # type: ignore[arg-type]  # a type is hashable
        value = getattr(config, name)
        if isinstance(value, dict) and (allowed := range_of(hint)) is not None:
            allowed.check(f"{section}{name}.", **value)
        elif (expected := _expected(hint, value)) is not None:
            raise ValueError(f"{section}{name} must be {expected}, got {value!r}")


@cache
def hints(kind: type) -> dict[str, Any]:
    """Type hints of a dataclass's fields, with their ranges."""
    found = get_type_hints(kind, include_extras=True)
    return {field.name: found[field.name] for field in dataclasses.fields(kind)}


def range_of(hint: Any) -> Range | None:
    """The first range in an annotation."""
    if get_origin(hint) is Annotated:
        return next((note for note in hint.__metadata__ if isinstance(note, Range)), None)
    return next((found for part in get_args(hint) if (found := range_of(part)) is not None), None)


def _expected(hint: Any, value: Any) -> str | None:
    """Description of what an annotation expects if the value does not match it, else None."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        allowed = range_of(hint)
        return None if allowed is None else allowed.expected(value)
    if origin in (Union, UnionType):
        if value is None and type(None) in parts:
            return None
        real = [part for part in parts if part is not type(None)]
        alike = [part for part in real if (get_origin(part) is tuple) == isinstance(value, list | tuple)]
        texts = [_expected(part, value) for part in alike or real]
        return None if None in texts else " or ".join(dict.fromkeys(text for text in texts if text))
    if origin is Literal:
        return None if value in parts else f"one of {', '.join(map(str, parts))}"
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return "a list"
        each = parts[:1] * len(value) if parts[1:] == (...,) else parts
        if len(each) != len(value):
            return f"{len(each)} values"
        return next((text for part, one in zip(each, value, strict=True) if (text := _expected(part, one))), None)
    if hint is bool:
        return None if isinstance(value, bool) else "true or false"
    return None if hint is not str or isinstance(value, str | os.PathLike) else "a text"
