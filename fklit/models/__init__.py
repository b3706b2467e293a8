"""Adapters: the rooms that know the internals of diffusers."""
