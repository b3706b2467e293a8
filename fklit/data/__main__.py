"""`python -m fklit.data fetch | verify | convert NAME DIR`: gets data, checks it, makes it mappable into memory."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from fklit.data.checksums import Finding, compare
from fklit.data.imagenet32_cache import convert
from fklit.data.verify import VERIFIERS
from fklit.emoji.art import fetch, verify_art
from fklit.molecules.strings.moses import HELD_OUT, MOLECULES, fetch_moses, verify_moses
from fklit.rewards.text_parts import CHECKSUMS, fetch_text_parts
from fklit.text.corpus import fetch_text, verify_text

FETCHERS = {
    "emoji": (fetch, "data/emoji", "emoji art is"),
    "moses": (fetch_moses, "data/moses", "molecules and tokenizer are"),
    "text": (fetch_text, "data/text", "texts and tokenizer are"),
    "text-parts": (fetch_text_parts, "data/parts", "language model and tagger are"),
}


def _verify_text_parts(data_dir: Path) -> Iterator[Finding]:
    return compare(data_dir, CHECKSUMS, "sha256")


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0 when everything is as it should be, 1 otherwise."""
    verifiers = {
        **VERIFIERS,
        "emoji": verify_art,
        "moses": verify_moses,
        "text": verify_text,
        "text-parts": _verify_text_parts,
    }
    parser = argparse.ArgumentParser(prog="python -m fklit.data", description="Fetch, check and convert data files.")
    commands = parser.add_subparsers(dest="command", required=True)
    bring = commands.add_parser("fetch", help="get data of others, at pinned versions with pinned checksums")
    bring.add_argument("name", choices=sorted(FETCHERS))
    bring.add_argument("data_dir", nargs="?", help="where it goes; default: data/NAME, of text-parts data/parts")
    bring.add_argument("--molecules", type=int, help=f"of moses: how many to train on; default: {MOLECULES}")
    bring.add_argument("--held_out", type=int, help=f"of moses: how many to validate on; default: {HELD_OUT}")
    check = commands.add_parser("verify", help="compare files with known checksums, and print them")
    check.add_argument("name", choices=sorted(verifiers))
    check.add_argument("data_dir", help="the folder that the data module takes")
    change = commands.add_parser("convert", help="make files that can be mapped into memory; resumes where it stopped")
    change.add_argument("name", choices=["imagenet32"])
    change.add_argument("data_dir", help="the folder of the official files")
    change.add_argument("--cache_dir", help="where the converted files go; default: mmap in the folder")
    options = parser.parse_args(args)
    sizes = {name: getattr(options, name, None) for name in ("molecules", "held_out")}
    sizes = {name: value for name, value in sizes.items() if value is not None}
    if sizes and options.name != "moses":
        parser.error(f"expected --{next(iter(sizes))} with moses only, got it with {options.name}; omit it")
    if options.command == "verify":
        good = True
        for finding in verifiers[options.name](Path(options.data_dir).expanduser()):
            print(f"{finding.verdict:8}{finding.name}: {finding.detail}", flush=True)
            good = good and finding.verdict == "ok"
        return 0 if good else 1
    try:
        if options.command == "fetch":
            bring_it, usual, what = FETCHERS[options.name]
            data_dir = usual if options.data_dir is None else options.data_dir
            bring_it(data_dir, **sizes)
            print(f"{what} in {data_dir}")
            return 0
        names = convert(options.data_dir, options.cache_dir)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"fklit: {error}", file=sys.stderr)
        return 1
    print(f"converted {', '.join(names)}" if names else "everything was converted before")
    return 0


if __name__ == "__main__":
    sys.exit(main())
