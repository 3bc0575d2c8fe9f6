"""Sources with a label for every pixel or point, a module a source. Importing this registers them."""

from pointmix.data.segment.sources import folder, scenes

__all__ = ["folder", "scenes"]
