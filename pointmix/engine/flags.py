"""Configurations read from YAML files and command-line flags, by jsonargparse."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TypeVar

from pointmix.engine.config import RunConfig
from pointmix.engine.yaml_check import check_yaml

Config = TypeVar("Config", bound=RunConfig)


def parse(argv: list[str], kind: type[Config], *, prog: str = "train", default_config: str | None = None) -> Config:
    """Read flags and `--config` files into a configuration of this kind.

    Files come first, wherever they stand among the flags, so flags always win. `default_config` is a YAML file taken
    when `argv` names none. Flags that name another model than the files do leave behind the files' model.kwargs.
    `--seeds 1 2 3` is the same as `--seeds=[1,2,3]`.

    Raises:
        ValueError: one line that names the key or file at fault.
    """
    from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

    # Else a configuration could name any class in model.kwargs, to be imported and called.
    no_classes = {"validate_subclass_spec_in_any": False, "instantiate_subclass_spec_in_any": False}
    set_parsing_settings(docstring_parse_attribute_docstrings=True, **no_classes)
    parser = ArgumentParser(prog=prog, description=kind.__doc__, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file of the keys below; flags win.")
    parser.add_class_arguments(kind)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--config", action="append")
    first.add_argument("--seeds", nargs="+")
    try:
        known, flags = first.parse_known_args(argv)
        if known.seeds is not None:
            plain = known.seeds == ["null"]
            flags.append("--seeds=" + ("null" if plain else f"[{','.join(s.strip('[],') for s in known.seeds)}]"))
        named = known.config or ([default_config] if default_config is not None else [])
        for name in named:  # of a file, or YAML itself
            of_file = "\n" not in name and Path(name).is_file()
            check_yaml(Path(name).read_text(encoding="utf-8") if of_file else name, name if of_file else "--config")
        files = [f"--config={name}" for name in named]
        settings = [flag for flag in flags if not flag.startswith("--print_config")]  # which would print and exit
        if parser.parse_args([*files, *settings]).model.name != parser.parse_args(files).model.name:
            files.append("--model.kwargs={}")
        found = parser.instantiate(parser.parse_args([*files, *flags]))
    except (ArgumentError, TypeError, OSError) as e:
        raise ValueError(" ".join(str(e).split())) from e
    return kind(**{f.name: found[f.name] for f in dataclasses.fields(kind)})
