"""Numerics on plain tensors."""
