"""A label for every pixel or point."""
