"""Data: sources, transforms, and loaders whose batches depend only on (seed, epoch, batch number)."""
