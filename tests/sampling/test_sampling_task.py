"""The Lightning half of every method that samples with a pipeline, with a scripted method in place of a pipeline."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchmetrics import Metric

from fklit.feynman_kac import Budget
from fklit.rewards.base import Reward
from fklit.sampling.no_training import NoTraining
from fklit.sampling.result import PipelineResult
from fklit.sampling.settings import SamplingSettings
from fklit.sampling.task import SamplingTask, cost_figures


class Source(nn.Module):
    """Stands for a pipeline's source; notes the order of what is asked of it."""

    def __init__(self, notes):
        super().__init__()
        self.notes = notes

    def settings(self):
        return {"weights": "none"}

    def load(self):
        self.notes.append("load pipeline")
        return self

    def enable_offload(self, device):
        self.notes.append(f"offload {device}")


class Loads(Reward):
    def __init__(self, notes):
        super().__init__()
        self.notes = notes

    def load(self):
        self.notes.append("load reward")
        return self

    def score(self, samples, prompts):
        return samples


class Task(SamplingTask):
    """Returns one result whose second of two particles is the better one; its figure is ten times the index."""

    def __init__(self, notes, **options):
        settings = SamplingSettings(reward=Loads(notes) if options.pop("rewarded", True) else None, num_particles=2)
        super().__init__(Source(notes), settings, reported=("ten",), **options)
        self.notes = notes

    def sample(self, prompts, indices, metadata=None):
        self.notes.append((list(prompts), list(indices), metadata, torch.get_num_threads()))
        size = len(prompts)
        return PipelineResult(
            samples=torch.full((size, 2, 3, 4, 4), 0.5), log_weights=torch.tensor([[0.2, 0.8]] * size).double().log(),
            log_z=torch.zeros(size).double(), steps=(), dropped=torch.zeros(size).long(), ess=torch.ones(1, size),
            ancestors=(), resampled=torch.zeros(0, size).bool(), degenerate=torch.zeros(size).bool(),
            budget=Budget(denoiser_calls=12, seconds=3.0), prompts=prompts, prompt_indices=indices, num_steps=3,
            scored_steps=(), settings={},
        )  # fmt: skip

    def figures(self, result):
        return {"ten": 10.0 * torch.tensor(result.prompt_indices)}


class Batches(Metric):
    """Keeps the batches that it got."""

    def __init__(self, value=1.0):
        super().__init__()
        self.batches, self.value, self.resets = [], value, 0

    def update(self, samples, batch):
        self.batches.append((samples, batch))

    def compute(self):
        return self.value

    def reset(self):
        super().reset()
        self.resets = getattr(self, "resets", 0) + 1


def _batch(*indices, **more):
    return {"prompts": [f"prompt {i}" for i in indices], "indices": torch.tensor(indices), **more}


def test_predict_samples_what_is_not_done():
    task = Task(notes := [])
    task.done = frozenset({1, 4})
    torch.set_num_threads(2)
    result = task.predict_step(_batch(1, 3, 4, 0), 0)
    assert notes == [(["prompt 3", "prompt 0"], [3, 0], [{"prompt": "prompt 3"}, {"prompt": "prompt 0"}], 1)]
    assert result.prompts == ["prompt 3", "prompt 0"] and len(notes) == 1
    assert task.predict_step(_batch(4, 1), 0) == () and len(notes) == 1
    assert torch.get_num_threads() == 2
    Task(notes, num_threads=None).predict_step(_batch(7, metadata=[{"prompt": "prompt 7", "tag": "x"}]), 0)
    assert notes[-1] == (["prompt 7"], [7], [{"prompt": "prompt 7", "tag": "x"}], 2)


@pytest.mark.parametrize("batch", [["a"], {"prompts": ["a"]}, {"indices": [0]}, "a"])
def test_a_batch_needs_prompts_and_indices(batch):
    for step in (Task([]).predict_step, Task([]).test_step):
        with pytest.raises(ValueError, match=rf"expected a batch .*, got a {type(batch).__name__}"):
            step(batch, 0)


def test_metrics_get_all_samples_the_chosen_slot_and_what_is_known_of_the_prompts():
    metric = Batches()
    task = Task([], metrics={"seen": metric})
    task.test_step(_batch(3, 5), 0)
    task.test_step(_batch(6, metadata=[{"prompt": "prompt 6", "tag": "x"}]), 1)
    (samples, first), (_, second) = metric.batches
    assert samples.shape == (2, 2, 3, 4, 4) and first.chosen.tolist() == [1, 1]
    assert first.prompts == ["prompt 3", "prompt 5"]
    assert first.metadata == [{"prompt": "prompt 3"}, {"prompt": "prompt 5"}]
    assert second.metadata == [{"prompt": "prompt 6", "tag": "x"}]
    assert float(task.means["ten"].compute()) == pytest.approx(10 * (3 + 5 + 6) / 3)


def test_means_and_metrics_are_logged_and_start_anew(monkeypatch):
    plain, several = Batches(torch.tensor(2)), Batches({"a": torch.tensor(3.0), "b": torch.tensor(4.0)})
    task = Task([], metrics={"plain": plain, "several": several})
    task.test_step(_batch(3, 5), 0)
    logged = {}

    def log_dict(values, *, sync_dist):
        assert sync_dist is True and all(value.is_floating_point() for value in values.values())
        logged.update(values)

    monkeypatch.setattr(task, "log_dict", log_dict)
    resets = plain.resets
    task.on_test_epoch_end()
    assert {name: float(value) for name, value in logged.items()} == {
        **{"test/ten": 40.0, "test/plain": 2.0, "test/several/a": 3.0, "test/several/b": 4.0},
    }
    assert plain.resets == resets + 1 and task.means["ten"].indices == []


def test_the_reward_is_loaded_before_the_pipeline_unless_all_is_done(monkeypatch):
    trainer = SimpleNamespace(datamodule=None, strategy=SimpleNamespace(root_device="cpu"))
    monkeypatch.setattr(Task, "trainer", trainer)
    items = [{"index": 0}, {"index": 4}]
    whole, pipeline_only = ["load reward", "load pipeline", "offload cpu"], ["load pipeline", "offload cpu"]
    for data, done, rewarded, expected in (
        (None, (), True, whole),
        (None, (), False, pipeline_only),
        (SimpleNamespace(items=items), (0,), True, whole),
        (SimpleNamespace(items=items), (0, 4, 9), True, []),
        (SimpleNamespace(), (0, 4), True, whole),
    ):
        task = Task(notes := [], rewarded=rewarded)
        trainer.datamodule, task.done = data, frozenset(done)
        task.configure_model()
        assert notes == expected


def test_settings_and_defaults():
    task = Task([], rewarded=False)
    assert task.settings()["source"] == {"weights": "none"} and task.settings()["num_particles"] == 2
    assert task.num_threads == 1 and len(task.metrics) == 0 and list(task.means) == ["ten"] and task.done == frozenset()
    with pytest.raises(ValueError, match="num_threads=0"):
        Task([], num_threads=0)
    with pytest.raises(ValueError, match="Task expected its own arguments, got a checkpoint"):
        Task.load_from_checkpoint("x")


def test_the_cost_is_shared_by_the_prompts():
    figures = cost_figures(Task([]).sample(["a", "b", "c"], [0, 1, 2]))
    assert figures["denoiser_calls"].tolist() == [4.0] * 3 and figures["seconds"].tolist() == [1.0] * 3


class Nothing(NoTraining):
    """A task of its own."""


def test_stages_that_train_are_refused_and_nothing_is_saved():
    task = Nothing()
    for stage in ("fit", "validate"):
        with pytest.raises(ValueError, match=r"expected `predict` or `test` with Nothing, which trains nothing"):
            task.setup(stage)
    for stage in ("test", "predict"):
        assert task.setup(stage) is None
    for method in (task.training_step, task.validation_step, task.configure_optimizers):
        with pytest.raises(ValueError, match="trains nothing"):
            method()
    task.weight = nn.Parameter(torch.zeros(1))
    assert task.state_dict() == {}
    assert task.load_state_dict({"other": torch.ones(1)}).missing_keys == []
