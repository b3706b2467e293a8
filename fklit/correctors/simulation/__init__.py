"""Weighted simulation of a target: proposals, increments, control variates, diagnostics."""
