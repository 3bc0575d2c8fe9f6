"""Modules on point sets."""
