"""What the classification of images and of clouds have in common."""
