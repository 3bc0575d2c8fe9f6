"""Images with objects: boxes, masks and classes."""
