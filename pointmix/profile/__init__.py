"""Parameters and multiply-adds of networks, and the figures published in the papers."""
