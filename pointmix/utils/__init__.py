"""Small tools that know nothing of points."""
