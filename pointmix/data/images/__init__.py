"""Sources of images: embedded, folders, archives; and what makes batches of them."""
