"""Training of score networks: data, objectives, and the Accelerate loop."""
