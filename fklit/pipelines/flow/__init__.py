"""Stochastic steps for flow-matching models: kernels with known mean, standard deviation and log density."""
