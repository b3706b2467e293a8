"""Exact references for small networks, and alignment with backpropagation."""
