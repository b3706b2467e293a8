"""`fklit configs list | copy`: the configurations that ship with fklit, from the wheel or from a checkout."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import fklit
from fklit.atomic import make_folder, write_text_atomically
from fklit.cli.messages import nearest


def folder() -> Path:
    """Where the configurations are: in the package where it was installed, else at the top of the checkout."""
    package = Path(fklit.__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """Names of all configurations, such as `"steering/emoji"`."""
    root = folder()
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))


def copy(name: str, destination: str | Path = "configs") -> list[Path]:
    """Copies a configuration, the files beside it that it names, and what is laid over it (the folder of its name).

    Paths in the copies name the copies.

    Args:
        name: As `names` gives it; `.yaml` and `configs/` are allowed around it.
        destination: Folder to copy to; the configuration keeps its place below it (`DEST/steering/emoji.yaml`).

    Returns:
        The files that were written.

    Raises:
        ValueError: There is no such configuration.
        FileExistsError: A file is there already.
    """
    name = name.removeprefix("configs/").removesuffix(".yaml")
    if name not in names():
        near = nearest(name, names()) or "`fklit configs list` shows all."
        raise ValueError(f"expected the name of a configuration that ships with fklit, got {name!r}; {near}")
    root, target = folder(), Path(destination).expanduser()
    text = (root / f"{name}.yaml").read_text(encoding="utf-8")
    mentioned = {found for found in re.findall(r"configs/([\w./-]+\.(?:jsonl|txt|csv|json))", text)}
    overlays = [path.relative_to(root).as_posix() for path in (root / name).glob("*.yaml")]
    wanted = (f"{name}.yaml", *sorted(mentioned), *sorted(overlays))
    for path in (target / relative for relative in wanted):
        if path.exists():
            raise FileExistsError(f"expected no file {path}, got one; remove it, or choose another DEST.")
    written = []
    for relative in wanted:
        path = target / relative
        content = (root / relative).read_text(encoding="utf-8")
        make_folder(path.parent)
        write_text_atomically(path, content.replace("configs/", f"{target.as_posix()}/"))
        written.append(path)
    return written


def run(words: Sequence[str]) -> None:
    """Runs `fklit configs WORDS`.

    Args:
        words: `list`, or `copy NAME [DEST]`.

    Raises:
        ValueError, OSError: See `copy`.
        SystemExit: The words could not be understood.
    """
    parser = argparse.ArgumentParser(prog="fklit configs", description="The configurations that ship with fklit.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="print the names, with what each is for")
    copying = commands.add_parser("copy", help="copy one, to change and run it")
    copying.add_argument("name", metavar="NAME", help="as `list` prints it")
    copying.add_argument("destination", metavar="DEST", nargs="?", default="configs", help="folder; default: configs")
    options = parser.parse_args(list(words))
    if options.command == "copy":
        for path in copy(options.name, options.destination):
            print(path)
        return
    width = max(map(len, names()))
    for name in names():
        first = (folder() / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
        print(f"{name:{width}}  {first.removeprefix('# ')}")
    sys.stdout.flush()
