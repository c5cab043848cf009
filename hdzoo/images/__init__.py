"""Pictures on the way in: one place reads them, one lists where they are."""
