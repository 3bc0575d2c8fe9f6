"""Sources of point clouds: embedded, HDF5; and what makes batches of them."""
