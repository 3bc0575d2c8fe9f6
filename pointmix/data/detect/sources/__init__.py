"""Sources of images with objects, a module a source; importing this package registers them."""
