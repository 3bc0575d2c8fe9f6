"""The heads of Mask R-CNN: torchvision's, where they are as in the papers, with the papers' settings."""
