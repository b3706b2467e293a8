"""Adapters to the text pipelines of diffusers, which keep their state outside of the scheduler."""
