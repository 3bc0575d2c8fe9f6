"""Versions of the package and of the libraries that a run's numbers depend on."""

from __future__ import annotations

import importlib
import platform
import sys


def version() -> str:
    """The version of this package."""
    return getattr(sys.modules[__name__.partition(".")[0]], "__version__", "unknown")


def versions() -> dict[str, str]:
    """Name -> version."""
    libraries = ("torch", "torchvision", "timm", "accelerate")
    others = {name: str(getattr(importlib.import_module(name), "__version__", "unknown")) for name in libraries}
    return {"python": platform.python_version(), "pointmix": version(), **others}
