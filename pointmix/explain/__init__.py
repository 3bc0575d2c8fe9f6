"""Pictures of clusters and plots of results."""

from pointmix.explain.clouds import draw_clouds
from pointmix.explain.frames import draw_frames
from pointmix.explain.images import draw_clusters

__all__ = ["draw_clouds", "draw_clusters", "draw_frames"]
