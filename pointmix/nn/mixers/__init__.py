"""Mixers: how the points of a set exchange features."""
