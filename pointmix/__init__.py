"""Images, whole or partial, as sets of points, and networks whose only spatial operation is clustering."""

import importlib
from typing import TYPE_CHECKING

from pointmix.utils.lazy import when_imported

if TYPE_CHECKING:
    from pointmix import data, explain, io, layouts, models, nn, ops, profile, tasks
    from pointmix.data import transforms
    from pointmix.engine.export import export_model
    from pointmix.engine.hub import from_pretrained, push_to_hub, save_pretrained
    from pointmix.models import create_model, list_models
    from pointmix.models.detector import create_detector
    from pointmix.models.segmenter import create_segmenter
    from pointmix.models.weights import load_reference
    from pointmix.pointset import PointSet

__version__ = "0.1.0"
__all__ = [
    "PointSet",
    "create_detector",
    "create_model",
    "create_segmenter",
    "data",
    "explain",
    "export_model",
    "from_pretrained",
    "io",
    "layouts",
    "list_models",
    "load_reference",
    "models",
    "nn",
    "ops",
    "profile",
    "push_to_hub",
    "save_pretrained",
    "tasks",
    "transforms",
]

# Imported on first access, as torch and timm take a second or more each; the other names are modules.
_PLACES = {
    "PointSet": "pointset",
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


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'pointmix' has no attribute {name!r}")
    if name in _PLACES:
        return getattr(importlib.import_module(f"pointmix.{_PLACES[name]}"), name)
    return importlib.import_module("pointmix.data.transforms" if name == "transforms" else f"pointmix.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# torchvision needs its operators declared, and whoever imports timm itself finds our models registered there
when_imported("torch", lambda _: importlib.import_module("pointmix.utils.torchvision_ops"))
when_imported("timm", lambda _: importlib.import_module("pointmix.models"))
