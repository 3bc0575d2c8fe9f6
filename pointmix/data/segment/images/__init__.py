"""Labeled images: masks and transforms."""
