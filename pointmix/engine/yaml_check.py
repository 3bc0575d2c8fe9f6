"""Configurations in YAML that hold values only, and stay small when they are read."""

from __future__ import annotations

import yaml

from pointmix.utils.limits import check_limit

DEEPEST = 50  # levels; deeper ones end in Python's limit of recursion


def check_yaml(text: str, what: str) -> None:
    """Refuse YAML that stands for more values than the limit YAML_VALUES allows once its aliases are written out, is
    nested too deeply, or names a class to be made. Text that is no YAML is left to whoever reads it.

    Args:
        what: what to call it in messages.
    Raises:
        ValueError: naming it.
    """
    check_limit("METADATA_BYTES", len(text), what)
    sizes: dict[str, int] = {}  # anchor -> values that it stands for
    above: list[tuple[str | None, int]] = []  # of each level: its anchor, and the values before it
    values = 0
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if isinstance(event, yaml.CollectionEndEvent):
                anchor, before = above.pop()
                if anchor:
                    sizes[anchor] = values - before
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor in (anchor for anchor, _ in above):
                    raise ValueError(f"{what}: the alias {event.anchor} stands within what it stands for")
                values += sizes.get(event.anchor, 1)
            elif isinstance(event, yaml.NodeEvent):
                if isinstance(event, yaml.CollectionStartEvent):
                    above.append((event.anchor, values))
                elif event.anchor:
                    sizes[event.anchor] = 1
                if getattr(event, "value", None) == "class_path":  # jsonargparse would import what it names
                    raise ValueError(f"{what} names a class under class_path, expected values only")
                values += 1
            if len(above) > DEEPEST:
                raise ValueError(f"{what} is nested more than {DEEPEST} levels deep")
            check_limit("YAML_VALUES", values, what)
    except (yaml.YAMLError, UnicodeError):
        return
