"""Correctors of discrete state spaces: masked diffusion and finite-state chains."""
