"""Layouts: full grids, sparse grids and clouds. Each reduces its points, plans windows and centers, and makes maps."""
