"""Settings in YAML files, read more strictly than PyYAML does: no duplicate keys, and 1e-4 is a number."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Literal, get_args, get_origin

import yaml

from pointmix.engine.shipped import find
from pointmix.utils.ranges import hints
from pointmix.utils.yaml_check import check_yaml

FLOAT = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d+")  # such as 1e-4, which PyYAML reads as text


class _Loader(yaml.SafeLoader):
    """Refuses a key that is in a mapping twice, and reads 1e-4 as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            where = f"in line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, f"a key is a list or a mapping {where}")
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice, again {where}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))


def load_yaml(text: str, what: str) -> Any:
    """The value of a YAML text; None for an empty one.

    Args:
        text: YAML of plain values.
        what: its name in messages.

    Raises:
        ValueError: it is no YAML, names objects, has a key twice or is too large; one line.
    """
    check_yaml(text, what)
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506, a SafeLoader
    except (yaml.YAMLError, RecursionError) as e:
        raise ValueError(f"{what} cannot be read as YAML: {' '.join(str(e).split())}") from e


def read_settings(name: str, kind: type) -> dict[str, Any]:
    """The settings in a YAML file, in a recipe of that name, or in YAML text of several lines, for a dataclass.

    YAML reads `no` and `off` as false: for a setting that is no boolean this becomes the choice "no" where there is
    one, else null. An empty file holds no settings.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else than settings.
    """
    if "\n" in name:
        text, name = name, "the configuration"
    else:
        try:
            text = find(name).read_text(encoding="utf-8")
        except UnicodeDecodeError as e:
            raise ValueError(f"{name} is not UTF-8 text: {e}") from e
    settings = load_yaml(text, name)
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise ValueError(f"{name} holds no settings, expected lines such as epochs: 300, got {str(settings)[:80]!r}")
    try:
        return _meant(settings, kind)
    except ValueError as e:
        raise ValueError(f"{name}: {e}") from e


def _meant(settings: dict[str, Any], kind: type) -> dict[str, Any]:
    """Settings with `no` and `off` as the annotations of a dataclass mean them."""
    known, meant = hints(kind), {}
    for key, value in settings.items():
        hint = known.get(key)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            if not isinstance(value, dict | None):
                raise ValueError(f"{key} must be a section with keys of its own, got {value!r}")
            value = _meant(value or {}, hint)
        elif value is False and hint is not None and bool not in (hint, *get_args(hint)):
            if get_origin(hint) is Literal and "no" in get_args(hint):
                value = "no"
            elif type(None) in get_args(hint):
                value = None
        meant[key] = value
    return meant
