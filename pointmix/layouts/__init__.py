"""Where the points of a set sit. Each layout knows how to reduce, window and draw its points."""
