"""Features of images, and what is measured with them."""
