"""One module for each file format. Every module of this folder is imported here and registers its reader."""

from pointmix.utils.lazy import import_submodules

import_submodules(__name__, __path__)
