"""The small models that ship with fklit, each in a folder with a card (README.md)."""

from pathlib import Path


def path(name: str) -> Path:
    """Folder of a shipped asset, for example ``path("emoji_clip")``.

    Raises:
        ValueError: There is no such asset.
    """
    root = Path(__file__).parent
    known = sorted(child.name for child in root.iterdir() if (child / "README.md").is_file())
    if name not in known:
        raise ValueError(f"The asset {name!r} was asked for; fklit ships {known}.")
    return root / name
