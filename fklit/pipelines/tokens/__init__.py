"""Adapters to pipelines of discrete tokens, which keep their state outside of the scheduler."""
