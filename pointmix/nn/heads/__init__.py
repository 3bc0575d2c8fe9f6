"""Heads: from the features of a network's points to its output. One file a kind of output."""
