"""Chains in the plane, animated."""
