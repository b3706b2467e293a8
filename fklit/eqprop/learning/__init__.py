"""Nudges, estimators of the response, the autograd function, and the homeostatic loss."""
