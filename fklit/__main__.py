"""``python -m fklit`` is the ``fklit`` command."""

from fklit.cli import main

if __name__ == "__main__":
    main()
