"""Layers, links, activations, and the recurrent network they make."""
