"""Point-cloud data: configuration, sources, transforms, loaders."""
