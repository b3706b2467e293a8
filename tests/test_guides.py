"""The Python examples of the guides run as they stand, in the order in which a reader meets them."""

import re
from pathlib import Path

import pytest
from synthetic_runs import write_run
from tiny_flow import make
from tiny_molecules import table_model
from tiny_proteins import chain_features, tiny_proteina
from tiny_text_pipelines import tiny_diffusion_gemma, tiny_llada2

import fklit

GUIDES = Path(__file__).parent.parent / "docs"
EXAMPLES = {
    path.name: blocks
    for path in sorted(GUIDES.glob("*.md"))
    if (blocks := re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL))
}
TINY = {"flow.md": ("sd3", {}), "video-and-audio.md": ("wan", {"num_frames": 9})}


def test_the_guides_have_examples():
    assert {"correctors.md", "equilibrium-propagation.md", "index.md", "report.md"} <= set(EXAMPLES)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # warnings of small examples are for readers
@pytest.mark.parametrize("guide", EXAMPLES)
def test_examples_run(guide, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if guide == "report.md":  # its examples read folders that runs have written
        write_run(tmp_path / "runs" / "best_of_n", ["a heart", "a frog"], steered=False, steps=())
        write_run(tmp_path / "runs" / "fk", ["a heart", "a frog"])
    known = {}
    if guide in TINY:  # no such model ships
        pipeline, arguments = make(TINY[guide][0])
        known = {"pipeline": pipeline, "reward": lambda images: images.mean((1, 2, 3))}
        small = {"pipeline_kwargs": {**arguments, "num_inference_steps": 10, **TINY[guide][1]}, "num_particles": 2}
        steer = fklit.steer
        monkeypatch.setattr(fklit, "steer", lambda *given, **more: steer(*given, **(more | small)))
    if guide == "text.md":  # the models of its examples are on the hub
        made = {"llada2": tiny_llada2, "diffusion_gemma": tiny_diffusion_gemma}
        monkeypatch.setattr(fklit.text.TextPipelineSource, "build", lambda source: made[source.kind]())
    if guide == "proteins.md":
        known = {"pipeline": tiny_proteina(), "features": chain_features(1)}
    if guide == "molecules.md":
        pytest.importorskip("rdkit")
        pytest.importorskip("selfies")
        known = {"model": table_model()}
    for number, example in enumerate(EXAMPLES[guide], 1):
        exec(compile(example, f"{guide}, example {number}", "exec"), {"__name__": "guide", **known})
    if guide == "report.md":
        assert (tmp_path / "report.html").is_file()
        assert any("judge" in path.read_text() for path in (tmp_path / "runs" / "fk").rglob("*.json"))
