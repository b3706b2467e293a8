"""Fields, and the relaxation of their states to fixed points."""
