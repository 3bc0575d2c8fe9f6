"""What a model clustered, as pictures."""

from pointmix.explain.pictures import draw_clusters

__all__ = ["draw_clusters"]
