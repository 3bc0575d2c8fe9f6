"""Image data: configuration, sources, transforms, masks, loaders."""
