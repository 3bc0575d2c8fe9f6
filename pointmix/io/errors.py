"""Errors about single samples of a data set."""


class UnreadableSample(ValueError):
    """A missing, damaged or empty image or cloud; the message is the reason alone, in one line."""


class BadMask(UnreadableSample):
    """A damaged mask, or one that does not fit its image. Never skipped; the message names the file."""
