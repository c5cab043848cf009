"""Samplers compared at equal cost."""
