"""Adapters to diffusers: the only package that knows its internals."""
