"""What a network costs, and what the papers say it does."""
