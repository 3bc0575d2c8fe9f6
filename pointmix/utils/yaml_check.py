"""YAML is checked before it is read: plain values only, and not too many of them."""

from __future__ import annotations

import yaml

from pointmix.utils.limits import check_limit

DEEPEST = 50  # levels; deeper ones may exceed Python's recursion limit


def check_yaml(text: str, what: str) -> None:
    """Refuse YAML that has more values than the limit YAML_VALUES once its aliases are expanded, is nested too deeply,
    or names a class to create. Text that is no YAML is left to its reader.

    Args:
        what: its name in messages.

    Raises:
        ValueError: one line with the name.
    """
    check_limit("METADATA_BYTES", len(text), what)
    sizes: dict[str, int] = {}  # anchor -> number of its values
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
                    raise ValueError(f"{what}: the alias {event.anchor} contains itself")
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
