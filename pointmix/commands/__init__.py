"""The command `pointmix`: one module a word, listed in `main`."""
