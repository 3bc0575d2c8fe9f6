"""From a network of crops to scores at the original pixels and points of whole images and scenes."""
