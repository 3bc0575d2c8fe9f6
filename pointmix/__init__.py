"""Images, whole or partial, as sets of points, and networks whose only spatial operation is clustering."""

import importlib
from types import ModuleType

from pointmix.pointset import PointSet
from pointmix.utils import torchvision_ops as _torchvision  # noqa: F401  before anything imports torchvision
from pointmix.utils.lazy import when_imported

__version__ = "0.1.0"

# Imported on first access: timm, which the models need, takes as long to import as torch.
_FUNCTIONS = {
    "create_detector": "models.detector",
    "create_model": "models",
    "create_segmenter": "models.segmenter",
    "export_model": "engine.export",
    "from_pretrained": "engine.hub",
    "list_models": "models",
    "load_reference": "models.weights",
    "push_to_hub": "engine.hub",
    "save_pretrained": "engine.hub",
}
_MODULES = {name: name for name in ("data", "explain", "io", "layouts", "models", "nn", "ops", "profile", "tasks")}
_MODULES["transforms"] = "data.transforms"

__all__ = ["PointSet", *_FUNCTIONS, *_MODULES]


def __getattr__(name: str) -> object:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f"pointmix.{_FUNCTIONS[name]}"), name)
    if name in _MODULES:
        module: ModuleType = importlib.import_module(f"pointmix.{_MODULES[name]}")
        return module
    raise AttributeError(f"module 'pointmix' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# whoever imports timm itself finds our models registered there
when_imported("timm", lambda _: importlib.import_module("pointmix.models"))
