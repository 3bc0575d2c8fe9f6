"""Configurations from YAML files and command-line flags, parsed by jsonargparse."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from typing import Any, TypeVar

from pointmix.engine.recipes import read_settings
from pointmix.tasks.config import RunConfig
from pointmix.utils.ranges import hints, range_of

Config = TypeVar("Config", bound=RunConfig)
LISTS = ("seeds", "data.features")  # keys whose values may follow one another, separated by spaces


def parse(argv: list[str], kind: type[Config], *, prog: str = "train") -> Config:
    """Parse flags and `--config` files into a configuration of this class, see `parse_recipe`."""
    return parse_recipe(argv, kind, prog=prog)[0]


def parse_recipe(
    argv: list[str], kind: type[Config], *, prog: str = "train", embedded: str | None = None
) -> tuple[Config, str]:
    """Parse flags and `--config` files into a configuration of this class, and say what it is based on.

    Files are read first, wherever they stand among the flags, so flags win. A `data.root` without a `data.source` sets
    what `kind.root_source` says, and is refused where that is None. Flags that name another model than the files
    discard the files' model.kwargs and name; flags that name another source discard their name. `--seeds 1 2 3` is the
    same as `--seeds=[1,2,3]`, and `--data.features` likewise.

    Args:
        prog: name of the command in messages.
        embedded: YAML file that is used where no other is given and the flags set no other data.

    Returns:
        The configuration, and the files that it is based on, or "defaults of PROG".

    Raises:
        ValueError: one line with the key or file that is wrong.
    """
    from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

    # Otherwise a configuration could name any class in model.kwargs to be imported and called.
    set_parsing_settings(validate_subclass_spec_in_any=False, instantiate_subclass_spec_in_any=False)
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    also = "--import MODULE imports a module of yours first; it may register models, data sources, readers or tasks."
    parser = ArgumentParser(prog=prog, description=kind.__doc__, epilog=also, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file of the keys below; flags win.")
    parser.add_class_arguments(kind)
    for action in parser._actions:
        if (allowed := range_of(_hint(kind, action.dest))) is not None:
            action.help = f"{action.help} [{allowed}]"
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--config", action="append", default=[])
    for key in LISTS:
        first.add_argument(f"--{key}", nargs="+")
    try:
        known, flags = first.parse_known_args(argv)
        for key in LISTS:
            if (words := getattr(known, key)) is not None:
                listed = f"[{','.join(word.strip('[],') for word in words)}]"
                flags.append(f"--{key}={'null' if words == ['null'] else listed}")
        files = [_as_flag(name, kind) for name in known.config]
        for name, file in zip(known.config, files, strict=True):
            try:
                parser.parse_args([file], defaults=False)
            except (ArgumentError, TypeError) as e:
                what = "the configuration" if "\n" in name else name
                raise ValueError(f"{what}: {_in_words(e)}") from e
        basis = ", ".join(name for name in known.config if "\n" not in name) or f"defaults of {prog}"
        given = parser.parse_args([*files, *_without_print(flags)], defaults=False)
        if given.get("data.root") and given.get("data.source") is None:
            source = kind.root_source(str(given.get("data.root")))
            if source is None:
                hint = "expected both, for a folder alone does not say what lies in it"
                raise ValueError(f"data.root is {given.get('data.root')}, and data.source is not given; {hint}")
            flags.insert(0, f"--data.source={source}")
            basis += f" (data.source {source}, as data.root is given)"
        elif embedded is not None and not files and given.get("data.source") in (None, _source(kind())):
            files, basis = [_as_flag(embedded, kind)], embedded
        before, after = (parser.parse_args([*files, *more]) for more in ([], _without_print(flags)))
        if before.model.name != after.model.name:
            files.append("--model.kwargs={}")
        if before.model.name != after.model.name or before.get("data.source") != after.get("data.source"):
            files.append("--name=null")
        values = parser.instantiate(parser.parse_args([*files, *flags]))
    except (ArgumentError, TypeError, OSError) as e:
        raise ValueError(_in_words(e)) from e
    return kind(**{f.name: values[f.name] for f in dataclasses.fields(kind)}), basis


def _source(cfg: RunConfig) -> str | None:
    return getattr(cfg.data, "source", None)


def _in_words(error: Exception) -> str:
    """An error of jsonargparse in one line, without Python's names for types."""
    text = re.sub(r"typing\.Annotated\[(\w+), Range\([^)]*\)\]", r"\1", " ".join(str(error).split()))
    several = r"Does not validate against any of the Union subtypes Subtypes: \[(.*?)\] Errors: .* Given value: (.*)"
    text = re.sub(several, r"expected one of \1, got \2", text)
    text = re.sub(r"Expected a (.*?)\. Got value: ", r"expected \1, got ", text)
    text = re.sub(r"<class '(\w+)'>", r"\1", text).replace("NoneType", "null").replace("typing.Literal", "one of ")
    return re.sub(r'^Parser key "([\w.]+)": ', r"\1: ", text)


def _as_flag(name: str, kind: type[RunConfig]) -> str:
    """The settings of a file as text, which jsonargparse accepts in place of the file."""
    return "--config=" + json.dumps(read_settings(name, kind), default=str)


def _hint(kind: type, key: str) -> Any:
    """The annotation of a key such as optim.lr; None if there is no such key."""
    section, _, name = key.rpartition(".")
    owner = hints(kind).get(section) if section else kind
    return hints(owner).get(name) if isinstance(owner, type) and dataclasses.is_dataclass(owner) else None


def _without_print(flags: list[str]) -> list[str]:
    """Flags without --print_config, which would print and exit."""
    return [flag for flag in flags if not flag.startswith("--print_config")]
