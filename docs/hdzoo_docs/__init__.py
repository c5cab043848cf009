"""The pages of the site that code makes, and the pictures on them. `docs/hooks.py` calls it."""
