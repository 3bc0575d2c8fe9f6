"""What a model clustered, as pictures."""

from pointmix.explain.clouds import draw_clouds
from pointmix.explain.frames import draw_frames
from pointmix.explain.pictures import draw_clusters

__all__ = ["draw_clouds", "draw_clusters", "draw_frames"]
