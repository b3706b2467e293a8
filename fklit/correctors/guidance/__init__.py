"""Corrected guidance of pretrained pipelines: `correct()`, its weights, and how far they can be trusted."""
