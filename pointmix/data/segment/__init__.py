"""Data with a label for every pixel or point."""
