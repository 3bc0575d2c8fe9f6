"""Numerics on plain tensors."""

from pointmix.ops.choice import backends, use_backend

__all__ = ["backends", "use_backend"]
