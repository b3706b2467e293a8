"""The small models that ship with fklit, each in a folder with a card (README.md)."""

from pathlib import Path

_PREFIX = "fklit:"


def path(name: str) -> Path:
    """Folder of a shipped asset, for example `path("emoji_clip")`.

    Raises:
        ValueError: There is no such asset.
    """
    root = Path(__file__).parent
    known = sorted(child.name for child in root.iterdir() if (child / "README.md").is_file())
    if name not in known:
        raise ValueError(f"expected one of {known}, got the asset {name!r}; choose one that fklit ships.")
    return root / name


def shipped(name: str) -> Path | None:
    """What a setting such as `"fklit:emoji_clip"` or `"fklit:emoji_scenes/vae"` stands for; None for other texts.

    Raises:
        ValueError: There is no such asset.
    """
    if not name.startswith(_PREFIX):
        return None
    asset, _, inside = name.removeprefix(_PREFIX).partition("/")
    return path(asset) / inside
