"""Models whose score is exact at every noise level, and named ones."""
