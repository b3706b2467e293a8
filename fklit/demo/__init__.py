"""`python -m fklit.demo`: what steering does to a text-to-image model, as a table and an HTML report."""
