"""Import hooks: all modules of a folder, and actions after a module has been imported."""

from __future__ import annotations

import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _After(MetaPathFinder):
    """Finds one module, and runs an action after its execution."""

    def __init__(self, name: str, action: Callable[[ModuleType], object]) -> None:
        self.name, self.action, self.searching = name, action, False

    def find_spec(
        self, name: str, path: Iterable[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.name or self.searching:
            return None
        self.searching = True  # find_spec below calls this finder again
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.searching = False
        if spec is None or spec.loader is None:
            return None
        exec_module = spec.loader.exec_module

        def exec_then_act(module: ModuleType) -> None:
            exec_module(module)
            sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
            self.action(module)

        spec.loader.exec_module = exec_then_act  # type: ignore[method-assign]
        return spec


def when_imported(name: str, action: Callable[[ModuleType], object]) -> None:
    """Call `action(module)` once: now if `name` is imported already, else as soon as its import has succeeded."""
    if name in sys.modules:
        action(sys.modules[name])
    else:
        sys.meta_path.insert(0, _After(name, action))


def import_submodules(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, so that each can register what it provides.

    Args:
        package, path: the package's `__name__` and `__path__`.
    """
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
