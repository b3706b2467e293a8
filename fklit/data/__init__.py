"""Data modules and the data they are made of."""
