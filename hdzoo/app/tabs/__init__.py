"""What the tabs of the page look like: one file a tab, each with a function that builds it."""
