"""New packages, written from templates."""
