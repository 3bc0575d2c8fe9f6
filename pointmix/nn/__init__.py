"""Modules on point sets."""

import timm  # noqa: F401  first: its import brings in our models, which bring in the modules here
