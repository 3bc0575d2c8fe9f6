"""Mixers: the only spatial operation of a network. `base` has their contract."""
