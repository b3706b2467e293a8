"""The Lightning half of every method that samples with a pipeline, with a scripted method in place of a pipeline."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler

from fklit.feynman_kac import Budget
from fklit.rewards.base import Reward
from fklit.sampling.no_training import NoTraining
from fklit.sampling.repeated import loader_at, repeated_rows
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


def test_steps_return_all_samples_the_chosen_slot_and_what_is_known_of_the_prompts():
    task = Task([])
    for step, stage in ((task.test_step, "test"), (task.validation_step, "val")):
        found = step(_batch(3, 5), 0)
        samples, known = found["samples"], found["batch"]
        assert samples.shape == (2, 2, 3, 4, 4) and known.chosen.tolist() == [1, 1], stage
        assert known.prompts == ["prompt 3", "prompt 5"] and known.indices.tolist() == [3, 5]
        assert known.metadata == [{"prompt": "prompt 3"}, {"prompt": "prompt 5"}]
        assert torch.equal(known.result.samples, samples)
        line = {"prompt": "prompt 6", "tag": "x"}
        assert step(_batch(6, metadata=[line]), 1)["batch"].metadata == [line]
        assert float(task.means["ten"].compute()) == pytest.approx(10 * (3 + 5 + 6) / 3)
        task.means["ten"].reset()
    nothing = task.test_step({"prompts": [], "indices": []}, 0)
    assert len(nothing["samples"]) == len(nothing["batch"].prompts) == 0


@pytest.mark.parametrize("stage", ["val", "test"])
def test_means_are_logged_and_start_anew(monkeypatch, stage):
    task, logged = Task([]), {}
    task.test_step(_batch(3, 5), 0)

    def log(name, value, *, sync_dist):
        assert sync_dist is True and value.dtype == torch.float32
        logged[name] = float(value)

    monkeypatch.setattr(task, "log", log)
    (task.on_validation_epoch_end if stage == "val" else task.on_test_epoch_end)()
    assert logged == {f"{stage}/ten": 40.0} and task.means["ten"].indices == []


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_what_a_distributed_sampler_repeats_is_not_sampled_again(rank):
    sampler = DistributedSampler(range(7), 3, rank, shuffle=True, seed=4)  # two places too many
    loader = DataLoader(range(7), batch_size=2, sampler=sampler)
    task, seen = Task(notes := []), []
    task._trainer = SimpleNamespace(test_dataloaders=[loader])
    for _ in range(2):
        task.on_test_epoch_start()
        for batch in loader:
            task.test_step(_batch(*batch.tolist()), 0)
        seen.append([index for note in notes for index in note[1]])
        notes.clear()
    # the sampler's list, without its padding
    everything = torch.randperm(7, generator=torch.Generator().manual_seed(4)).tolist()
    assert seen[0] == seen[1] == everything[rank::3]


def test_rows_are_repeated_only_where_a_sampler_pads():
    assert repeated_rows(DataLoader(range(5)), 0, 3) == [False] * 3 == repeated_rows(None, 0, 3)
    pads = DataLoader(range(5), sampler=DistributedSampler(range(5), 2, 1))
    assert repeated_rows(pads, 0, 3) == [False, False, True] and repeated_rows(pads, 2, 1) == [True]
    drops = DataLoader(range(5), sampler=DistributedSampler(range(5), 2, 1, drop_last=True))
    assert repeated_rows(drops, 0, 2) == [False] * 2
    assert loader_at({"a": 1, "b": 2}, 1) == loader_at([1, 2], 1) == loader_at(2, 0) == 2 and loader_at([], 0) is None


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
    assert task.num_threads == 1 and list(task.means) == ["ten"] and task.done == frozenset()
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
    with pytest.raises(ValueError, match="`predict`, `validate` or `test` with Nothing, which trains nothing"):
        task.setup("fit")
    for stage in ("validate", "test", "predict"):
        assert task.setup(stage) is None
    for method in (task.training_step, task.configure_optimizers):
        with pytest.raises(ValueError, match="trains nothing"):
            method()
    task.weight = nn.Parameter(torch.zeros(1))
    assert task.state_dict() == {}
    assert task.load_state_dict({"other": torch.ones(1)}).missing_keys == []
