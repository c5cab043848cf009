"""Sets of images on disk: resumable, the same whatever drew them."""
