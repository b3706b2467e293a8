"""Targets as data: experts on a noise path, with exponents and a tilt."""
