"""The denoiser of a step asked at another noise level: what the pipeline itself then makes of the same samples."""

import importlib
import json
import warnings
from pathlib import Path

import pytest
import torch
from tiny_families import rows

from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.level_grid import levels_ahead
from fklit.pipelines.network_replay import NetworkReplay
from fklit.pipelines.step_call import StepChange
from fklit.sampling.look_ahead import LookAhead
from fklit.steering.run import SteeringRun

ROOT = Path(__file__).parents[2]
PARTS = 8  # so that processes share the work
SAME = ("DDPMPipeline", "FluxPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "WanPipeline",
        "AnimateDiffPipeline")  # fmt: skip
REFUSED = {
    "GlmImagePipeline": "expected GlmImageTransformer2DModel to be called with timestep = 750, or that over 1000, got",
    "QwenImageEditPipeline": "expected a model output that is a linear combination of what the denoiser returned",
    "AceStepPipeline": "whose argument 'timestep_r' belongs to the level of the step as well",
    "StableDiffusionControlNetPipeline": "whose argument 'down_block_additional_residuals' belongs to the level",
    "LatentConsistencyModelPipeline": "expected a denoiser that predicts the mean of x_0, got one that LCMScheduler",
    "ZImagePipeline": "expected a denoiser that takes the samples",
}
_STEERED = [
    row["pipeline"]
    for row in json.loads((ROOT / "docs" / "results" / "compatibility.json").read_text())["rows"]
    if row["verdict"] == "steered" and not rows()[row["pipeline"]].tokens
]


@pytest.fixture
def cells(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("compatibility_cells")


def _verdict(cells, monkeypatch, name):
    """The refusal, or None where the prediction at the level of the next step is the pipeline's own."""
    seen = {}

    def weigh(self, call):
        if call.index == call.num_steps - 3:
            now, after = levels_ahead(call, call.num_steps, otherwise="stop")[:2]
            replay = NetworkReplay(call, otherwise="stop")
            replay.find_times(now)
            count = call.sample.shape[0]
            other = torch.randn(call.sample.shape, generator=torch.Generator().manual_seed(7)).to(call.sample)
            chosen = torch.arange(count).flip(0)[: max(count - 1, 1)]  # some rows, in another order
            seen["predicted"] = replay.predict(other[chosen], chosen, at=after)
            seen["chosen"], seen["x0"] = chosen, after.denoised(seen["predicted"], other[chosen])
            assert (
                replay.evaluations == sum(item.prediction.shape[0] for item in call.network_calls) * len(chosen) / count
            )
            return StepChange(children=lambda children: other.to(children))
        if "predicted" in seen and "output" not in seen:
            seen["output"] = call.model_output[seen["chosen"]]
            seen["own x0"] = call.denoised()[seen["chosen"]]
        return None

    row = rows()[name]
    torch.set_num_threads(1)
    with warnings.catch_warnings(), monkeypatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setattr(SteeringRun, "weigh", weigh)
        patch.setattr(SteeringRun, "finish", lambda self, *args, **kwargs: None)
        pipeline = row.make()[0]
        try:
            cells._steer(row, pipeline, look_ahead=LookAhead(), reward_scale=1.0)
        except UnsupportedPipelineError as error:
            return str(error)
    for found, wanted in ((seen["predicted"], seen["output"]), (seen["x0"], seen["own x0"])):
        size = float(wanted.float().abs().max().clamp(min=1e-3))
        tolerance = 2e-3 if wanted.dtype == torch.float32 else 5e-2
        torch.testing.assert_close(
            found.float(), wanted.float(), rtol=0.0, atol=tolerance * size, msg=lambda text: f"{name}: {text}"
        )
    return None


@pytest.mark.parametrize("name", SAME)
def test_a_few_pipelines_predict_the_same(cells, monkeypatch, name):
    assert _verdict(cells, monkeypatch, name) is None


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused(cells, monkeypatch, name):
    assert REFUSED[name] in _verdict(cells, monkeypatch, name)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_every_pipeline_predicts_the_same_or_is_refused(cells, monkeypatch, part):
    for name in _STEERED[part::PARTS]:
        found = _verdict(cells, monkeypatch, name)
        assert found is None or (found.startswith("expected") and found.endswith("stop.")), f"{name}: {found}"
