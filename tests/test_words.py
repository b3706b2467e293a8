"""One vocabulary: words that the field does not use, or spells in another way, stay out of everything a user reads."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLACES = ("fklit", "configs", "docs", "tests", "notebooks", "benchmarks", "README.md", "CONTRIBUTING.md")
WORDS = re.compile(
    r"(?i)\b(swarm\w*|rubbish\w*|unsettled|optimiser\w*|normalised?|colours?|centre\w*|guidance_halves|empty_share"
    r"|rooms|behaviour\w*|neighbour\w*|initialis\w*|labelled|licence\w*|honour\w*|favour\w*|parameteris\w*"
    r"|linearis\w*|standardis\w*|minimis\w*|maximis\w*|discretis\w*|unnormalised|judge's eye)\b"
)
NOT_READ = ("docs/results/", "tests/test_words.py")
# Where old names are listed with what replaced them, and class names of ImageNet.
LISTS = ("fklit/renamed.py", "tests/cli/test_renamed.py")


def test_words_that_the_field_does_not_use_are_not_used() -> None:
    listed = subprocess.run(["git", "ls-files", *PLACES], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = []
    for name in listed.splitlines():
        vocabulary = name.endswith("/tokenizer.json")
        if name.startswith((*NOT_READ, *LISTS)) or vocabulary or not (ROOT / name).is_file():
            continue
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # pictures and weights
        found += [f"{name}:{i}: {m[0]}" for i, line in enumerate(text.splitlines(), 1) for m in WORDS.finditer(line)]
    assert not found
