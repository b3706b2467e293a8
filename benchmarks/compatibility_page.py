"""The page of the compatibility table, rendered from its JSON: `python benchmarks/compatibility_page.py`."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results" / "compatibility.json"
PAGE = ROOT / "docs" / "compatibility.md"

_INTRODUCTION = """\
# Which pipelines work

This page is made by `python benchmarks/compatibility.py` from runs of each class of diffusers {version} with tiny
random weights; nothing on it is a guess. Find the class of your model: its name stands in its `model_index.json`.

| steered | best of n only | refused | not tried | families tried |
|---:|---:|---:|---:|---:|
| {steered} | {best_of_n} | {refused} | {not_tried} | {families_tried} |

**Steered** means, for two prompts with three particles each and forced resampling: at `reward_scale=0` the samples are
the plain pipeline's, bit for bit; so are those of a run under fklit's sampler in which no weight parts, against the
plain pipeline under that sampler; what rewards see at the last step is what the pipeline returns; and a clone continues
exactly as its parent would under the same noise (to 2e-5 where attention rounds by the place of a row). **Best of n**
means that resampling on the way is refused, for the reason given, while `potential="terminal"` draws and weighs the
pipeline's own samples. **Refused** means that neither is possible. **Guidance** says whether `fklit.correct` weighs the
classifier-free guidance of the class. The class of a family that is used most is in bold.

Of discrete tokens (texts, aMUSEd) these are the comparisons: at `reward_scale=0`, and where no weight parts, the
samples are those of the plain pipeline's call with three copies of a prompt, bit for bit; a complete sample predicts
itself; and a clone that forgets its predictions continues as one that has them. [Steering text](text.md) has more.

In the examples `prompts` are texts, `reward` is a [reward](steering.md) and other names are your inputs.
"""
_KINDS = {"image": "Images", "video": "Videos", "audio": "Audio", "text": "Texts"}


def render(report: Mapping[str, Any]) -> str:
    """Return the page in Markdown."""
    entries = report["rows"]
    parts = [_INTRODUCTION.format(version=report["diffusers"], **report["counts"])]
    for kind, title in _KINDS.items():
        tried = [entry for entry in entries if entry.get("kind") == kind]
        if tried:
            parts.append(f"## {title}\n\n{_table(tried)}")
    rest: dict[str, list[str]] = {}
    for entry in entries:
        if entry["verdict"] == "not tried":
            rest.setdefault(entry["folder"], []).append(f"`{entry['pipeline']}`")
    lines = [f"- {folder}: {', '.join(names)}" for folder, names in sorted(rest.items())]
    parts.append(
        "## Not tried\n\nNothing on this page is known about these classes; fklit refuses by name what it recognizes.\n"
        "`RFD4ProteinaPipeline` is steered by an adapter with tests of its own, see [Steering proteins](proteins.md).\n"
    )
    return "\n".join(parts) + "\n" + "\n".join(lines) + "\n"


def _table(entries: Iterable[Mapping[str, Any]]) -> str:
    order = sorted(entries, key=lambda entry: (entry["family"].lower(), not entry["main"], entry["pipeline"]))
    lines = ["| family | class | verdict | guidance | example |", "|---|---|---|---|---|"]
    for entry in order:
        name = f"**`{entry['pipeline']}`**" if entry["main"] else f"`{entry['pipeline']}`"
        verdict = f"**{entry['verdict']}**" + (f": {_cell(entry['reason'])}" if entry["reason"] else "")
        guidance = "yes" if entry["corrected"] else f"no: {_cell(entry['correct_reason'])}"
        example = f"`{entry['example']}`" if entry["example"] else ""
        lines.append(f"| {entry['family']} | {name} | {verdict} | {guidance} | {example} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


if __name__ == "__main__":
    PAGE.write_text(render(json.loads(RESULTS.read_text())), encoding="utf-8")
