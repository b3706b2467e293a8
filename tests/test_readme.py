"""The README's Python examples run as they stand, and its shell commands exist."""

import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
# Of models that have to be downloaded; they stand in a list.
INDENTED = re.findall(r"^  ```python\n(.*?)^  ```", README, flags=re.DOTALL | re.MULTILINE)


def test_there_are_four_examples():
    assert len(EXAMPLES) == 4
    assert all(len(example.strip().splitlines()) <= 12 for example in EXAMPLES)


def test_the_examples_of_models_on_the_hub_compile_and_name_what_exists():
    import ast

    import diffusers

    assert len(INDENTED) == 1
    tree = ast.parse(textwrap.dedent(INDENTED[0]))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    pipelines = {name for name in used if name.endswith("Pipeline")}
    assert used - pipelines == {"fklit", "prompts", "reward"} and all(hasattr(diffusers, name) for name in pipelines)


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=[f"example {i + 1}" for i in range(len(EXAMPLES))])
def test_example_runs(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})


def test_commands_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?make ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"README names `make {target}`"
    for config in set(re.findall(r"configs/[\w/]+\.yaml", README)):
        assert (ROOT / config).is_file(), f"README names {config}"


def test_links_to_files_exist():
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", README):
        assert (ROOT / target).exists(), f"README links to {target}"
