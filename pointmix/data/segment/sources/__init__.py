"""Sources with a label for every pixel or point, a module a source. Importing this registers them."""
