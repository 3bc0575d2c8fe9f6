"""A page to look inside a network: its clusters of one input, block by block, head by head, in a browser."""
