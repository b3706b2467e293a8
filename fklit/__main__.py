"""`python -m fklit` is the `fklit` command."""

from fklit.cli import command

if __name__ == "__main__":
    command()
