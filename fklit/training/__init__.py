"""Training recipes of the small models that ship with fklit."""
