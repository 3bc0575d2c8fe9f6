"""Sources of images with objects, a module a source. Importing this registers them."""

from pointmix.utils.lazy import import_submodules

import_submodules(__name__, __path__)
