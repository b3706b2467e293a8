"""Molecules as strings of SELFIES: data, conditions, a masked diffusion model, and products of its conditions."""
