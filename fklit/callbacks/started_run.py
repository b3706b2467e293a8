"""What a folder holds when a run starts: whose results they are, and which of them are whole."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from fklit.report.damage import damage
from fklit.report.differences import differences
from fklit.report.versions import old_version

PROMPT_FOLDER = "[0-9]" * 5
_REMEDY = "choose another --output_dir, or set overwrite: true to replace"


class DamagedResultWarning(UserWarning):
    """What is on disk of a prompt cannot be read, so that the prompt is sampled again."""


def check_run(folder: Path, settings: Mapping[str, Any], settings_hash: str) -> None:
    """Refuse a folder with results of another run. One that holds no result yet belongs to whoever comes.

    Args:
        folder: Output folder; it need not exist.
        settings: Settings of this run.
        settings_hash: Their hash.

    Raises:
        ValueError: The folder holds results of other settings or of fklit 0.1, or files of somebody else.
    """
    found = read_json(folder / "run.json")
    if found is None:
        foreign = next((part for part in sorted(folder.glob(PROMPT_FOLDER)) if any(part.iterdir())), None)
        if foreign is not None:
            raise ValueError(
                f"output_dir: expected an empty folder or a run of fklit, got files in {foreign} without {folder}/"
                f"run.json; {_REMEDY} them."
            )
        return
    if old := old_version(found):
        raise ValueError(
            f"output_dir: expected an empty folder or a run of fklit 0.2 or newer, got {folder} of fklit {old}; "
            f"{_REMEDY} it."
        )
    if found.get("settings_hash") == settings_hash:
        return
    records = sorted(folder.glob(f"{PROMPT_FOLDER}/record.json"))
    if not records:  # a run that failed before its first result, perhaps by the very setting that is changed now
        return
    if "settings_hash" not in found:  # a damaged file: the results say themselves what they were made with
        hashes = {(read_json(record) or {}).get("settings_hash", settings_hash) for record in records}
        if hashes == {settings_hash}:
            rank_zero_warn(f"{folder}/run.json is damaged and is written again.", category=DamagedResultWarning)
            return
    known = isinstance(found.get("settings"), dict)
    changed = differences(found["settings"], settings) if known else "run.json is damaged"
    raise ValueError(
        f"output_dir: expected the settings that {folder} was started with, got others ({changed}); {_REMEDY} it."
    )


def done_prompts(
    folder: Path, prompts: Iterable[tuple[int, str]], settings_hash: str, *, overwrite: bool = False
) -> list[int]:
    """Indices of the prompts whose results are there and whole.

    Args:
        folder: Output folder.
        prompts: Index and text of the prompts that are asked for.
        settings_hash: Hash of the settings.
        overwrite: Whether results of another run are replaced instead of refused.

    Raises:
        ValueError: There is a result of other settings or another prompt.
    """
    done = []
    for index, prompt in prompts:
        where = folder / f"{index:05d}"
        record = read_json(where / "record.json")
        if record is None:
            continue
        fault = None if {"settings_hash", "prompt"} <= record.keys() else "record.json cannot be read"
        same_settings, same_prompt = record.get("settings_hash") == settings_hash, record.get("prompt") == prompt
        if fault is None and not (same_settings and same_prompt):
            if overwrite:
                continue
            what = "with other settings" if same_prompt else f"of another prompt ({record.get('prompt')!r})"
            raise ValueError(
                f"output_dir: expected results of this run, got {where} with a result {what}; {_REMEDY} it."
            )
        fault = fault or damage(where, record)
        if fault is None:
            done.append(int(index))
        else:
            rank_zero_warn(f"{where} is damaged and is sampled again: {fault}.", category=DamagedResultWarning)
    return done


def read_json(path: Path) -> dict[str, Any] | None:
    """The object that a JSON file holds: None if there is no file, empty if it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
