"""SteeringTask with a real Trainer on a tiny random Stable Diffusion."""

import json

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from tiny import tiny_ddpm, tiny_stable_diffusion
from torchmetrics import Metric

from fklit.callbacks import MetricsCallback, SampleWriter
from fklit.data import PromptDataModule
from fklit.feynman_kac.schedule import Schedule
from fklit.pipelines.source import PipelineSource
from fklit.rewards import Function, Standardized
from fklit.sampling.describe import settings_hash
from fklit.steering.api import steer
from fklit.steering.task import SteeringTask

PROMPTS = ["a green heart", "two cats", "a red apple left of a dog"]
STEERING = {
    "num_particles": 3,
    "max_batch": 8,
    "reward_scale": 30.0,
    "reward_schedule": Schedule(start=1, stop=3, every=1),
    "pipeline_kwargs": {"num_inference_steps": 5, "eta": 1.0, "guidance_scale": 2.0},
}


def redness(images):
    return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))


def never(images):
    raise RuntimeError("must not be called")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "sd"
    tiny_stable_diffusion(path)
    return str(path)


@pytest.fixture
def trainer(tmp_path):
    def make(**arguments):
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        return Trainer(accelerator="cpu", devices=1, default_root_dir=tmp_path, **{**quiet, **arguments})

    return make


def task(folder, reward=redness, **changes):
    return SteeringTask(PipelineSource(folder), **{"reward": Function(reward), **STEERING, **changes})


def test_predict_equals_steer_and_does_not_depend_on_the_batch(folder, trainer):
    runs = []
    for size in (1, 3):
        results = trainer().predict(task(folder), PromptDataModule(prompts=PROMPTS, batch_size=size))
        runs.append(
            {
                index: (result.samples[b], result.rewards[b], result.ancestors[:, b], result.log_z[b])
                for result in results
                for b, index in enumerate(result.prompt_indices)
            }
        )
    assert runs[0].keys() == runs[1].keys() == {0, 1, 2}
    for index in range(3):
        assert all(torch.equal(one, other) for one, other in zip(runs[0][index], runs[1][index], strict=True))
    direct = steer(PipelineSource(folder).pipeline, PROMPTS[1:], reward=redness, prompt_indices=[1, 2], **STEERING)
    assert torch.equal(direct.samples[0], runs[0][1][0])
    assert torch.equal(direct.samples[1], runs[0][2][0])
    assert not torch.equal(direct.samples[0], direct.samples[1])


def test_test_reports_means_over_prompts_and_own_metrics(folder, trainer):
    class MeanPixel(Metric):
        full_state_update = False

        def __init__(self):
            super().__init__()
            self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
            self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

        def update(self, samples, batch):
            images = batch.choose(samples)
            assert images.shape[1:] == (3, 16, 16) and len(images) == len(batch.prompts)
            self.total += images.mean((1, 2, 3)).sum()
            self.count += len(images)

        def compute(self):
            return self.total / self.count

    class Tags(MeanPixel):
        def update(self, samples, batch):
            assert [set(line) for line in batch.metadata] == [{"prompt", "tag"}] * len(samples)
            super().update(samples, batch)

    class OfAllSamples(MeanPixel):
        def update(self, samples, batch):
            assert samples.shape[1:] == (3, 3, 16, 16) and batch.chosen.shape == (len(samples),)
            self.total += samples.mean((2, 3, 4)).sum()
            self.count += samples.shape[0] * samples.shape[1]

        def compute(self):
            return {"mean": super().compute(), "samples": self.count}

    rows = [{"prompt": prompt, "tag": "x"} for prompt in PROMPTS]
    metrics = MetricsCallback({"pixel": MeanPixel(), "tags": Tags(), "all": OfAllSamples()})
    module = task(folder)
    (logged,) = trainer(callbacks=[metrics]).test(module, PromptDataModule(prompts=rows, batch_size=2), verbose=False)
    direct = steer(PipelineSource(folder).pipeline, PROMPTS, reward=redness, **STEERING)
    best = direct.rewards.max(1).values
    assert logged["test/reward_best"] == pytest.approx(float(best.mean()), abs=1e-6)
    assert logged["test/reward_mean"] == pytest.approx(float(direct.reward_mean.mean()), abs=1e-6)
    assert logged["test/log_z"] == pytest.approx(float(direct.log_z.mean()), abs=1e-5)
    assert logged["test/ess"] == pytest.approx(float(direct.ess[-1].mean()), abs=1e-5)
    assert logged["test/unique_roots"] == pytest.approx(float(direct.unique_roots.double().mean()))
    assert logged["test/denoiser_calls"] == 5 * 3 * 2
    chosen = direct.samples[torch.arange(3), direct.best_index()]
    assert logged["test/all/samples"] == 9
    assert logged["test/all/mean"] == pytest.approx(float(direct.samples.mean()), abs=1e-6)
    assert logged["test/pixel"] == logged["test/tags"] == pytest.approx(float(chosen.mean()), abs=1e-6)


def test_unconditional_pipeline(tmp_path, trainer):
    tiny_ddpm(tmp_path / "ddpm")
    module = task(str(tmp_path / "ddpm"), pipeline_kwargs={"num_inference_steps": 5})
    (result,) = trainer().predict(module, PromptDataModule(prompts=["first", "second"], batch_size=2))
    assert result.samples.shape == (2, 3, 3, 16, 16)


def test_weights_are_loaded_once_moved_and_kept_out_of_checkpoints(folder, trainer, tmp_path):
    module = task(folder)
    assert not module.source.is_loaded and not list(module.parameters())
    runner = trainer()
    data = PromptDataModule(prompts=PROMPTS[:1])
    runner.predict(module, data)
    unet = module.source.pipeline.unet
    runner.predict(module, data)
    assert module.source.pipeline.unet is unet and unet in module.modules()
    assert module.state_dict() == {} and module.source.state_dict() == {}
    runner.strategy.connect(module)
    runner.save_checkpoint(tmp_path / "empty.ckpt")
    saved = torch.load(tmp_path / "empty.ckpt", weights_only=True)
    assert saved["state_dict"] == {} and "hyper_parameters" not in saved
    trainer().predict(module, data, ckpt_path=tmp_path / "empty.ckpt", weights_only=True)


def test_offloaded_networks_give_the_same_samples(folder, trainer):
    data = PromptDataModule(prompts=PROMPTS[:1])
    module = SteeringTask(PipelineSource(folder, offload=True), reward=Function(redness), **STEERING)
    (offloaded,), (plain,) = trainer().predict(module, data), trainer().predict(task(folder), data)
    assert torch.equal(offloaded.samples, plain.samples) and hasattr(module.source.pipeline.unet, "_hf_hook")


def test_networks_follow_the_module(folder):
    module = task(folder)
    module.source.load()
    module.to(torch.float64)
    assert module.source.pipeline.unet.dtype == torch.float64


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
@pytest.mark.parametrize("with_data", [True, False])
def test_training_is_refused(with_data, folder, trainer):
    data = PromptDataModule(prompts=PROMPTS) if with_data else None
    loaders = None if with_data else [torch.zeros(1)]
    with pytest.raises(ValueError, match=r"trains nothing|with PromptDataModule"):
        trainer(max_epochs=1).fit(task(folder), loaders, datamodule=data)


def test_validate_says_what_test_says(folder, trainer):
    data = PromptDataModule(prompts=PROMPTS, batch_size=2)
    said = {stage: getattr(trainer(), stage)(task(folder), data, verbose=False)[0] for stage in ("validate", "test")}
    validated = {f"test/{name.removeprefix('val/')}": value for name, value in said["validate"].items()}
    assert {**validated, "test/seconds": 0} == {**said["test"], "test/seconds": 0} and "val/log_z" in said["validate"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_particles": 0}, "num_particles"),
        ({"potential": "diference"}, "potential"),
        ({"resampler": "sistematic"}, "resampler"),
        ({"ess_threshold": 1.5}, "ess_threshold"),
        ({"reward_scale": -1.0}, "reward_scale expected a finite number of at least 0, got -1.0"),
        ({"reward_scale": float("nan")}, "got nan"),
        ({"max_batch": 0}, "max_batch=0 is too small"),
        ({"num_threads": 0}, "num_threads=0"),
        ({"on_nan": "ignore"}, "on_nan"),
        ({"on_degenerate": "drop"}, "on_degenerate"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_loaded(changes, message, folder):
    with pytest.raises((ValueError, TypeError), match=message):
        task(folder, **changes)


def test_a_batch_without_indices_is_refused(folder, trainer):
    with pytest.raises(ValueError, match=r"expected a batch \{'prompts': \[...\], 'indices': \[...\]\}"):
        trainer().predict(task(folder), [["a green heart"]])


def test_a_wrong_argument_of_the_call_is_refused(folder, trainer):
    module = task(folder, pipeline_kwargs={"num_inference_step": 5})
    with pytest.raises(TypeError, match="did you mean 'num_inference_steps'"):
        trainer().predict(module, PromptDataModule(prompts=PROMPTS))


def test_an_exception_in_the_reward_keeps_what_was_written(folder, trainer, tmp_path):
    seen = []

    def fails_at_the_second_prompt(images, prompts):
        seen.append(prompts[0])
        if prompts[0] == PROMPTS[1]:
            raise RuntimeError("out of luck")
        return images.mean((1, 2, 3))

    out = tmp_path / "out"
    with pytest.raises(Exception, match="out of luck"):
        trainer(callbacks=[SampleWriter(str(out))]).predict(
            task(folder, fails_at_the_second_prompt), PromptDataModule(prompts=PROMPTS), return_predictions=False
        )
    assert [path.name for path in sorted(out.glob("*/record.json"))] == ["record.json"]
    assert json.loads((out / "00000" / "record.json").read_text())["prompt"] == PROMPTS[0]


def test_settings_tell_runs_apart_and_ignore_place_batch_and_threads(folder, tmp_path):
    import shutil

    base = settings_hash(task(folder).settings())
    shutil.copytree(folder, tmp_path / "moved")
    same = [task(str(tmp_path / "moved")), task(folder, num_threads=2)]
    assert all(settings_hash(module.settings()) == base for module in same)
    changed = [
        task(folder, never),
        task(folder, num_particles=4),
        task(folder, potential="max"),
        task(folder, reward_scale=31.0),
        task(folder, reward_schedule=Schedule(start=1, stop=2, every=1)),
        task(folder, resampler="ssp"),
        task(folder, ess_threshold=0.6),
        task(folder, seed=1),
        task(folder, scheduler="keep"),
        task(folder, max_batch=4),
        task(folder, pipeline_kwargs={**STEERING["pipeline_kwargs"], "guidance_scale": 2.5}),
        SteeringTask(PipelineSource(folder, dtype="bfloat16"), reward=Function(redness), **STEERING),
        SteeringTask(PipelineSource(folder), reward=Standardized(Function(redness), mean=0.0, std=2.0), **STEERING),
    ]
    hashes = {settings_hash(module.settings()) for module in changed}
    assert len(hashes) == len(changed) and base not in hashes
    unet = tmp_path / "moved" / "unet" / "config.json"
    unet.write_text(unet.read_text().replace("\n", "\n ", 1))
    assert settings_hash(task(str(tmp_path / "moved")).settings()) != base


def test_it_is_a_plain_lightning_module_without_saved_settings(folder):
    module = task(folder)
    assert isinstance(module, LightningModule) and not module.hparams
    with pytest.raises(
        ValueError, match="SteeringTask expected its own arguments, got a checkpoint; it trains nothing"
    ):
        SteeringTask.load_from_checkpoint("last.ckpt")


def test_cpu_threads_are_pinned_and_restored(folder, trainer):
    seen = []

    def reward(images):
        seen.append(torch.get_num_threads())
        return images.mean((1, 2, 3))

    torch.set_num_threads(2)
    trainer().predict(task(folder, reward), PromptDataModule(prompts=PROMPTS[:1]))
    assert set(seen) == {1} and torch.get_num_threads() == 2
