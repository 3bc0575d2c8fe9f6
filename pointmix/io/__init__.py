"""Files and arrays to tensors and back."""
