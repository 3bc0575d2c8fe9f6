"""One module for each source of images. Every module of this folder is imported here and registers its source."""

from pointmix.utils.lazy import import_submodules

import_submodules(__name__, __path__)
