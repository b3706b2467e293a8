"""Metrics on tasks of every kind: what is logged equals the metrics by hand; what does not fit is refused by name."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from equilibria import images, mlp
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI
from mixtures import FIRST, SECOND
from PIL import Image
from tiny import tiny_stable_diffusion
from tiny_clip import write_tiny_clip
from torch.utils.data import DataLoader
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassF1Score
from torchmetrics.image import TotalVariation

from fklit.callbacks import AlignmentCallback, MetricsCallback
from fklit.callbacks.metric_checks import check_start
from fklit.cli import main
from fklit.correctors import Target, VariancePreserving, correct
from fklit.correctors.guidance.task import GuidanceTask
from fklit.correctors.simulation.task import SimulationTask
from fklit.data import PromptDataModule, SimulationDataModule
from fklit.emoji import EmojiScenesDataModule
from fklit.eqprop.relaxation.settings import Relaxation
from fklit.eqprop.training.task import EqPropTask
from fklit.metrics import (
    CLIPFID,
    CLIPKID,
    Alignment,
    ChosenSamples,
    CLIPDiversity,
    CLIPFeatures,
    Compositional,
    RewardMetric,
    UniqueRoots,
)
from fklit.pipelines.source import PipelineSource
from fklit.rewards import Function, Reward

ROWS = [{"prompt": "a green heart", "tag": "x"}, {"prompt": "two cats", "tag": "y"}, {"prompt": "a dog", "tag": "x"}]
PATH = VariancePreserving()
SETTINGS = {
    "guidance_scale": 3.0,
    "num_particles": 2,
    "ess_threshold": 1.0,
    "pipeline_kwargs": {"num_inference_steps": 3, "eta": 1.0},
    "scheduler": "keep",
}


def redness(images):
    return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))


def red(**options):
    return RewardMetric(Function(redness), **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "sd"
    tiny_stable_diffusion(path)
    return str(path)


@pytest.fixture
def trainer(tmp_path):
    def make(*callbacks, **options):
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        quiet |= {"enable_model_summary": False}
        return Trainer(
            accelerator="cpu", devices=1, default_root_dir=tmp_path, callbacks=[*callbacks], **quiet, **options
        )

    return make


def guidance(folder, **changes):
    return GuidanceTask(PipelineSource(folder), **{**SETTINGS, **changes})


def simulation():
    target = Target.guided(SECOND.on(PATH), FIRST.on(PATH), scale=2.0)
    return SimulationTask(target, num_particles=12, num_steps=5, ess_threshold=1.0)


class OfVideos(Reward):
    accepts = "video"

    def score(self, samples, prompts):
        raise AssertionError("must not be called")


class Digits(torch.utils.data.Dataset):
    def __init__(self, size=22):
        self.x, _ = images(size, (20,), dtype=torch.float32)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"x": self.x[i], "y": i % 10, "index": i}


def classifier():
    free = Relaxation(max_iterations=40)
    return EqPropTask(mlp(inputs=20, hidden=(16, 12), dtype=torch.float32, free=free, num_classes=10))


def loader():
    return DataLoader(Digits(), batch_size=8)


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_samples_of_prompts(folder, trainer, stage):
    callback = MetricsCallback({"red": red(by="tag"), "left": UniqueRoots(), "tv": ChosenSamples(TotalVariation())})
    data = PromptDataModule(prompts=ROWS, batch_size=2)
    (logged,) = getattr(trainer(callback), stage)(guidance(folder), data, verbose=False)
    prefix = {"validate": "val", "test": "test"}[stage]
    direct = correct(PipelineSource(folder).pipeline, [row["prompt"] for row in ROWS], **SETTINGS)
    chosen = direct.samples[torch.arange(3), direct.sample_index(1)[:, 0]]
    expected = redness(chosen).double()
    assert logged[f"{prefix}/red"] == pytest.approx(float(expected.mean()), abs=1e-6)
    assert logged[f"{prefix}/red/x"] == pytest.approx(float(expected[[0, 2]].mean()), abs=1e-6)
    assert logged[f"{prefix}/red/y"] == pytest.approx(float(expected[1]), abs=1e-6)
    assert logged[f"{prefix}/left"] == logged[f"{prefix}/unique_roots"]
    assert logged[f"{prefix}/tv"] == pytest.approx(float(TotalVariation()(chosen)), rel=1e-4)
    again = getattr(trainer(callback), stage)(guidance(folder), data, verbose=False)[0]
    assert {**again, f"{prefix}/seconds": 0} == {**logged, f"{prefix}/seconds": 0}, "begins anew"


def test_distances_to_real_images(folder, trainer, tmp_path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "real").mkdir()
    clip = str(write_tiny_clip(tmp_path / "clip"))
    pixels = torch.randint(0, 255, (4, 16, 16, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for number, image in enumerate(pixels.numpy()):
        Image.fromarray(image).save(tmp_path / "real" / f"{number}.png")
    kinds = {"fid": CLIPFID, "kid": CLIPKID}
    metrics = {name: kind(clip, real=str(tmp_path / "real"), min_samples=3) for name, kind in kinds.items()}
    data = PromptDataModule(prompts=ROWS, batch_size=2)
    (logged,) = trainer(MetricsCallback(metrics)).test(guidance(folder), data, verbose=False)
    direct = correct(PipelineSource(folder).pipeline, [row["prompt"] for row in ROWS], **SETTINGS)
    chosen = direct.samples[torch.arange(3), direct.sample_index(1)[:, 0]]
    real = pixels.permute(0, 3, 1, 2).float() / 255
    embed = CLIPFeatures(clip)
    for name, kind in kinds.items():
        expected = kind(clip, real="unused").distance(embed(chosen).double(), embed(real).double())
        assert logged[f"test/{name}"] == pytest.approx(float(expected), rel=1e-3)
    metrics["fid"].min_samples = None
    with pytest.raises(
        ValueError, match="expected at least 17 samples for fid, one a prompt, got 3; give more prompts"
    ):
        trainer(MetricsCallback(metrics)).test(guidance(folder), data, verbose=False)


def test_particles_without_prompts(trainer):
    class Mean(Metric):
        full_state_update = False

        def __init__(self):
            super().__init__()
            self.add_state("parts", [], dist_reduce_fx="cat")

        def update(self, samples, batch):
            assert samples.shape[1:] == (12, 1) and batch.result.num_particles == 12
            self.parts.append(batch.choose(samples))

        def compute(self):
            return torch.cat(self.parts).mean()

    callback = MetricsCallback({"left": UniqueRoots(), "mean": Mean()})
    (logged,) = trainer(callback).test(simulation(), SimulationDataModule(3, batch_size=2), verbose=False)
    assert logged["test/left"] == logged["test/unique_roots"] and abs(logged["test/mean"]) < 5


def test_classes_beside_alignment(trainer):
    metrics = {"f1": MulticlassF1Score(10, average="micro"), "per_class": MulticlassF1Score(10)}
    run = trainer(MetricsCallback(metrics), AlignmentCallback(), max_epochs=1, num_sanity_val_steps=1)
    task = classifier()
    run.fit(task, loader(), loader())
    fitted = run.callback_metrics
    assert float(fitted["val/f1"]) == pytest.approx(float(fitted["val/top1"]), abs=1e-6)
    (validated,) = run.validate(task, loader(), verbose=False)
    (tested,) = run.test(task, loader(), verbose=False)
    assert tested["test/f1"] == pytest.approx(tested["test/top1"], abs=1e-6) and 0 <= tested["test/per_class"] <= 1
    aligned = {name: value for name, value in validated.items() if name.startswith("alignment/")}
    assert {"alignment/usable", "alignment/symmetry"} < aligned.keys() and len(aligned) > 8
    for name, value in aligned.items():
        assert tested[f"test/{name}"] == pytest.approx(value, nan_ok=True), name


@pytest.mark.parametrize(
    ("make", "metric", "message"),
    [
        ("guidance", TotalVariation, r"m \(TotalVariation\) expected ChosenSamples around a metric of torchmetrics"),
        ("guidance", lambda: Alignment(["a"], {}), r"m \(Alignment\) expected AlignmentCallback, got MetricsCallback"),
        ("classes", red, r"m \(RewardMetric\) needs prompts and samples, expected a metric of classes for EqPropTask"),
        ("classes", UniqueRoots, r"m \(UniqueRoots\) needs particles, expected a metric of classes for EqPropTask"),
        ("particles", red, r"m \(RewardMetric\) needs prompts and samples, expected a metric of particles for Sim"),
        ("particles", Compositional, r"m \(Compositional\) needs prompts and samples, expected a metric of particles"),
        ("particles", lambda: ChosenSamples(TotalVariation()), r"m \(ChosenSamples\) needs images, expected a metric"),
        ("none", red, "MetricsCallback expected a task that returns samples or classes, got LightningModule; leave"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(make, metric, message, folder, trainer):
    kinds = {
        "guidance": lambda: guidance(folder),
        "classes": classifier,
        "particles": simulation,
        "none": LightningModule,
    }
    task = kinds[make]()
    for stage in ("fit", "validate", "test"):
        with pytest.raises(ValueError, match=message):
            MetricsCallback({"m": metric()}).setup(trainer(), task, stage)
    assert MetricsCallback({"m": metric()}).setup(trainer(), task, "predict") is None


def test_runs_that_are_too_small_are_refused_at_their_start(folder, trainer, tmp_path):
    (tmp_path / "clip").mkdir()
    clip = write_tiny_clip(tmp_path / "clip")
    callback = MetricsCallback({"variety": CLIPDiversity(str(clip))})
    data = PromptDataModule(prompts=ROWS)
    with pytest.raises(ValueError, match=r"variety \(CLIPDiversity\) expected at least 2 samples a prompt, got 1"):
        trainer(callback).test(guidance(folder, num_particles=1), data)
    with pytest.raises(ValueError, match=r"m expected a reward that scores image samples, got OfVideos, which"):
        trainer(MetricsCallback({"m": RewardMetric(OfVideos())})).test(guidance(folder), data)
    few = SimpleNamespace(num_prompts=3)
    wrapped = ChosenSamples(TotalVariation())
    with pytest.raises(ValueError, match=r"m \(ChosenSamples\) expected a prompt for each of 4 processes, got 3; use"):
        check_start("m", wrapped, few, world_size=4)
    check_start("m", wrapped, few, world_size=3)
    check_start("m", red(), few, world_size=4)  # knows what to exchange when it saw none


def test_what_cannot_be_logged_is_refused(trainer):
    with pytest.raises(ValueError, match=r"m \(MulticlassConfusionMatrix\) expected numbers to log, got a tensor"):
        trainer(MetricsCallback({"m": MulticlassConfusionMatrix(10)})).test(classifier(), loader(), verbose=False)
    with pytest.raises(ValueError, match="MetricsCallback expected at least one metric by name, got none"):
        MetricsCallback({})


@pytest.mark.parametrize("name", ["", "a.b", "reward", "base", "loss", "items"])
def test_names_that_are_taken_are_refused(name):
    with pytest.raises(ValueError, match=f"expected a name of a metric that is free and without dots, got {name!r}"):
        MetricsCallback({name: red()})


def test_names_of_the_tasks_own_figures_are_refused(folder, trainer):
    with pytest.raises(ValueError, match=r"\(UniqueRoots\) expected a name that GuidanceTask does not log itself, got"):
        MetricsCallback({"unique_roots": UniqueRoots()}).setup(trainer(), guidance(folder), "test")


def test_the_yaml_of_the_guide_builds_every_metric(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])
    monkeypatch.setattr(LightningCLI, "_run_subcommand", lambda self, subcommand: None)
    root = Path(__file__).parents[2]
    block, texts = re.findall(r"```yaml\n(.*?)```", (root / "docs" / "metrics.md").read_text(), re.DOTALL)
    (tmp_path / "guide.yaml").write_text(block)
    (tmp_path / "texts.yaml").write_text(texts)
    real = re.findall(r"`real: (\{.*?\})`", (root / "docs" / "metrics.md").read_text())
    more = f"""
      judge: {{class_path: Compositional}}
      fid: {{class_path: CLIPFID, init_args: {{model_name: fklit:emoji_clip, real: {real[0]}}}}}
      kid: {{class_path: CLIPKID, init_args: {{model_name: fklit:emoji_clip, real: a/folder}}}}
      left: {{class_path: UniqueRoots}}
      ssim:
        class_path: ChosenSamples
        init_args: {{metric: {{class_path: torchmetrics.image.TotalVariation}}}}
    """
    (tmp_path / "more.yaml").write_text(block.partition("          clip_score")[0] + more.replace("\n  ", "\n      "))
    debug = root / "configs" / "debug" / "steering.yaml"
    for name, kinds in (
        ("guide.yaml", ["MeanCLIPScore", "RewardMetric", "RewardMetric", "CLIPDiversity"]),
        ("texts.yaml", ["TextPerplexity", "AcceptanceRate", "Distinct", "SelfBLEU"]),
        ("more.yaml", ["Compositional", "CLIPFID", "CLIPKID", "UniqueRoots", "ChosenSamples"]),
    ):
        cli = main(["test", "--config", str(debug), "--config", name])
        (callback,) = (item for item in cli.trainer.callbacks if isinstance(item, MetricsCallback))
        assert [type(metric).__name__ for metric in callback.metrics.values()] == kinds
    assert (
        isinstance(callback.metrics["fid"].real, EmojiScenesDataModule) and callback.metrics["kid"].real == "a/folder"
    )


def test_what_a_sampler_repeats_counts_once_among_classes():
    callback, task = MetricsCallback({"f1": MulticlassF1Score(10, average="micro")}), classifier()
    sampler = torch.utils.data.DistributedSampler(range(3), 2, 1, shuffle=False)
    loaders = SimpleNamespace(test_dataloaders=DataLoader(range(3), sampler=sampler))
    callback.on_test_epoch_start(loaders, task)
    right = {"scores": torch.eye(10)[[1]], "y": torch.tensor([1])}
    wrong = {"scores": torch.eye(10)[[1]], "y": torch.tensor([2])}
    for outputs in (right, wrong):  # the second place of this process is the first item again
        callback.on_test_batch_end(loaders, task, outputs, None, 0)
    assert float(callback.metrics["f1"].compute()) == 1


def test_steps_that_return_something_else_are_refused():
    task = SimpleNamespace(evaluates="samples")
    loaders = SimpleNamespace(test_dataloaders=[])
    with pytest.raises(TypeError, match="expected a dictionary from the steps of SimpleNamespace, got a Tensor"):
        MetricsCallback({"m": red()}).on_test_batch_end(loaders, task, torch.zeros(1), None, 0)
