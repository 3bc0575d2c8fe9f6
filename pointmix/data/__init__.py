"""Data: sources of images, their transforms, and loaders whose every batch follows from (seed, epoch, batch number)."""
