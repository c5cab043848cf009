"""Judging samplers: exact targets and laws, distances, checks, and the literature reproduced."""
