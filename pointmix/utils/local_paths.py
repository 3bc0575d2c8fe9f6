"""Paths of this computer in values that leave it: they may name a user, a project or a patient."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from pointmix.utils.json_values import Json

HIDDEN = "DIR"
USERS = ("home", "users")  # folders whose folders are named after users
LABELS = ("classes",)  # keys of names that people gave, such as /m/01g317, which are no paths
REMOTE = ("hf-hub:", "timm/")
_PART = r"[^\s/:;,'\"()<>|]+"
_ABSOLUTE = re.compile(rf"(?:file://|(?<![\w.:/\\~-]))(?:~?(?:/{_PART}){{2,}}/?|~/{_PART}|(?:[A-Za-z]:\\|\\\\){_PART})")


class PathHider:
    """Replaces paths by their last part, or by DIR where that would be the name of a user.

    Texts that are an absolute path as a whole, and values of path keys, are found in all documents first; then they are
    replaced everywhere, in longer texts too, and so is what looks like an absolute path. Values of the key `classes`
    stay as they are.

    Args:
        documents: JSON values that will be hidden.
        keys: names of settings whose values are paths, relative ones too; and all that end in _root, _dir or _path.
        more: other paths.
    """

    def __init__(self, documents: Collection[Json], *, keys: Collection[str], more: Collection[Path] = ()) -> None:
        self.keys = keys
        found = {text for document in documents for text in self._paths(document)}
        found |= {str(path) for path in (*more, *(path.resolve() for path in more), Path.cwd(), Path.home())}
        parents = {str(parent) for text in found for parent in _pure(text).parents if len(parent.parts) > 2}
        known = sorted((p for p in found | parents if re.search(r"[/\\]\w", p)), key=len, reverse=True)
        self.known = re.compile(rf"(?<![\w.~-])(?:{'|'.join(map(re.escape, known))})(?:[/\\]{_PART})*(?![\w-])")

    def hide(self, value: Json, key: str = "") -> Json:
        """The same value without local paths.

        Args:
            key: under which the value stands.
        """
        if isinstance(value, dict):
            return {self._hide_inside(str(k), [self.known]): self.hide(v, str(k)) for k, v in value.items()}
        if isinstance(value, list):
            return [self.hide(v, key) for v in value]
        if not isinstance(value, str) or key in LABELS:
            return value
        return last_part(value) if self._is_path(value, key) else self._hide_inside(value, [self.known, _ABSOLUTE])

    def _hide_inside(self, text: str, patterns: list[re.Pattern[str]]) -> str:
        for pattern in patterns:
            text = pattern.sub(lambda match: last_part(match[0]), text)
        return text

    def _is_path(self, text: str, key: str) -> bool:
        if not text or text.startswith(REMOTE) or "\n" in text:
            return False
        named = key in self.keys or key.endswith(("_root", "_dir", "_path"))
        return named or (is_outside(text) and ": " not in text)

    def _paths(self, value: Json, key: str = "") -> Iterator[str]:
        if isinstance(value, dict):
            for k, v in value.items():
                yield from self._paths(v, str(k))
        elif isinstance(value, list):
            for v in value:
                yield from self._paths(v, key)
        elif isinstance(value, str) and key not in LABELS and self._is_path(value, key):
            yield value


def is_outside(text: str) -> bool:
    """Whether a text begins as an absolute path of any system, or as one out of the current folder."""
    return text.startswith(("/", "~/", "../", "..\\", "\\\\", "file://")) or bool(PureWindowsPath(text).drive)


def last_part(text: str) -> str:
    """The last part of a path; DIR where it has none or is the folder of a user."""
    path = _pure(text)
    is_user = path.parent.name.lower() in USERS or str(path) == str(Path.home())
    return HIDDEN if is_user or path.name in ("", ".", "..", "~") else path.name


def _pure(text: str) -> PurePosixPath | PureWindowsPath:
    text = text.removeprefix("file://")
    is_windows = "\\" in text and not text.startswith("/")
    return PureWindowsPath(text) if is_windows else PurePosixPath(text)
