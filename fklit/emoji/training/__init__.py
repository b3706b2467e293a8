"""The training recipes of the models that ship with fklit."""
