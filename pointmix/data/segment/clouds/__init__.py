"""Labeled clouds: features, crops and transforms."""
