"""Augmentation and normalization."""
