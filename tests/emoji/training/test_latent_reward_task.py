"""The latent reward: its data are the generator's runs, its loss has the conditional mean at its minimum."""

import json

import pytest
import torch
from lightning.pytorch import Trainer
from scipy.stats import spearmanr

import fklit
from fklit.emoji.latent_trajectory_data import LatentTrajectoriesDataModule
from fklit.emoji.training.latent_reward import LatentRewardTask, spearman_by_time
from fklit.emoji.training.trajectories import Trajectories
from fklit.rewards import ImageReward, LatentImageReward

SHIPPED = "fklit:emoji_scenes"
pytestmark = [
    pytest.mark.filterwarnings("ignore:The '(train|val)_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
]


def _data(folder, **options):
    trajectories = Trajectories(SHIPPED, 2, 2, steps=3, kept=3, first=0.0, last=1.0)
    given = {"folder": str(folder), "num_chunks": 1, "num_val_chunks": 1, "batch_size": 4, **options}
    return LatentTrajectoriesDataModule(trajectories, **given)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    module = _data(tmp_path_factory.mktemp("chunks"))
    module.prepare_data()
    module.setup("fit")
    return module


def _task(**options):
    torch.manual_seed(0)
    return LatentRewardTask(channels=(8, 16), blocks=(1, 1), distill_rows=2, warmup_steps=1, **options)


def test_chunks_hold_runs_of_the_generator_and_the_verdict_on_their_ends(data):
    (batch,) = list(data.val_dataloader())[:1]
    assert batch["latents"].shape == (4, 4, 16, 16) and batch["own"].all()
    chunk, draws = data.val_set.chunks[0], data.trajectories
    judge = ImageReward("fklit:emoji_reward")
    torch.manual_seed(900_001)
    torch.randperm(128)  # which captions are drawn for is drawn first
    final, means, _ = draws.latents([caption for caption in chunk["captions"] for _ in range(2)], torch.device("cpu"))
    torch.testing.assert_close(chunk["latents"].float(), means, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(means[:, -1], final)  # at the last step the prediction is the end itself
    ends = draws.decode(draws.load(torch.device("cpu")), final)
    for number, caption in enumerate(chunk["captions"]):
        torch.testing.assert_close(chunk["chance"][:, number], judge(ends, [caption] * 4).exp(), atol=1e-5, rtol=0)
    assert float(batch["chance"][1]) == float(chunk["chance"][0, 0]), "all kept steps of a run come to the same end"
    times = [float(value) for value in chunk["times"]]
    assert times == sorted(times, reverse=True) and 0 <= times[-1] < times[0] < 1
    tune, test = (set(data.captions(split)) for split in ("tune", "test"))
    assert set(chunk["captions"]) <= test and set(data.train_set.chunks[0]["captions"]) <= tune and not tune & test


def test_an_interrupted_drawing_goes_on_where_it_stopped(data, tmp_path):
    again = _data(tmp_path / "again")
    again.prepare_data()
    names = ["tune_0000.safetensors", "test_0000.safetensors"]
    assert [(again.folder / name).read_bytes() for name in names] == [
        (data.folder / name).read_bytes() for name in names
    ]
    (again.folder / names[1]).unlink()
    kept = (again.folder / names[0]).stat().st_mtime_ns
    again.prepare_data()
    assert (again.folder / names[0]).stat().st_mtime_ns == kept and (again.folder / names[1]).is_file()
    with pytest.raises(ValueError, match="expected chunks of these settings, got others"):
        _data(again.folder, seed=1).prepare_data()


def test_swapped_captions_come_with_their_own_verdict(data):
    swapped = type(data.train_set)([data.folder / "tune_0000.safetensors"], 0.999)
    chunk = swapped.chunks[0]
    _, _, caption, chance, own = swapped[0]
    assert not own and caption == chunk["captions"][1] and chance == float(chunk["chance"][0, 1])


def test_the_minimum_of_the_loss_is_the_mean_of_the_power():
    """One state that came to several ends: q goes to their mean of P^exponent, not to the power of their mean."""
    task = _task(exponent=3.0, distill_steps=0)
    chance = torch.tensor([0.9, 0.2, 0.6, 1.0])
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)).expand(4, -1, -1, -1)
    batch = {"latents": latents, "time": torch.full((4,), 0.5), "captions": ["two cats"] * 4, "chance": chance}
    batch["own"] = torch.ones(4, dtype=torch.bool)
    task.log = lambda *args, **kwargs: None
    optimizer = torch.optim.LBFGS(task.encoder.calibration.parameters(), max_iter=100)

    def closure():
        optimizer.zero_grad()
        loss = task.training_step(batch, 0)
        loss.backward()
        return loss

    optimizer.step(closure)
    found = task.log_odds(latents, batch["time"], batch["captions"]).sigmoid()
    torch.testing.assert_close(found, (chance**3).mean().expand(4), atol=1e-4, rtol=0)


def test_it_trains_resumes_and_scores_what_it_was_trained_to(data, tmp_path):
    folder = tmp_path / "reward"
    options = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False, "max_epochs": -1}
    options |= {"enable_model_summary": False, "enable_checkpointing": False, "limit_val_batches": 2}
    options |= {"num_sanity_val_steps": 0, "default_root_dir": str(tmp_path)}
    task = _task(distill_steps=1, exponent=2.0, export_dir=str(folder))
    trainer = Trainer(max_steps=3, **options)
    trainer.fit(task, datamodule=data)
    assert {"train/distill", "train/loss", "val/loss"} <= set(trainer.logged_metrics)
    trainer.save_checkpoint(tmp_path / "some.ckpt")
    assert not any("reader" in name or "pipeline" in name for name in task.state_dict())
    again = LatentRewardTask.load_from_checkpoint(tmp_path / "some.ckpt", weights_only=True)
    resumed = Trainer(max_steps=4, **options)
    resumed.fit(again, datamodule=data, ckpt_path=tmp_path / "some.ckpt", weights_only=True)
    assert resumed.global_step == 4
    reward = LatentImageReward(str(tmp_path / "reward"), until=0.5)
    latents = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    scores = reward(latents, ["two cats", "a red heart left of a dog", "two cats"], time=0.4)
    task = again.eval()  # the folder was written at the end of the second fit
    odds = task.log_odds(latents, torch.full((3,), 0.4), ["two cats", "a red heart left of a dog", "two cats"])
    expected = torch.nn.functional.logsigmoid(odds) / 2
    torch.testing.assert_close(scores, expected.detach().double(), atol=2e-2, rtol=1e-2)
    assert (scores <= 0).all() and scores.dtype == torch.float64
    result = fklit.steer(
        data.trajectories.load(torch.device("cpu")),
        "two cats",
        reward=ImageReward("fklit:emoji_reward"),
        latent_reward=reward,
        num_particles=2,
        reward_schedule=fklit.Schedule(indices=(1, 2)),
        scheduler="keep",
        pipeline_kwargs={"num_inference_steps": 4, "guidance_scale": 1.0, "eta": 1.0},
    )
    assert result.latent_steps == (1,) and result.budget.decodes == 4
    with pytest.raises(ValueError, match=r"expected latents of shape \(4, 16, 16\), got \(4, 8, 8\); it belongs to"):
        reward(latents[:, :, :8, :8], ["two cats"] * 3, time=0.4)


def test_the_encoder_that_ships_fits_its_size():
    task = LatentRewardTask()
    assert 2 * sum(value.numel() for value in task.encoder.state_dict().values()) < 1.3e6


def test_rank_correlation_is_within_captions_at_each_time():
    generator = torch.Generator().manual_seed(0)
    scores, chance = torch.randn(12, generator=generator), torch.rand(12, generator=generator)
    time, captions = torch.tensor([0.5, 0.25] * 6), ["a"] * 6 + ["b"] * 6
    chance[6::2] = 0.5  # b has none at 0.5
    found = spearman_by_time(scores, chance, time, captions)
    assert list(found) == [0.5, 0.25]
    assert found[0.5] == pytest.approx(spearmanr(scores[0:6:2], chance[0:6:2])[0], abs=1e-5)
    both = [spearmanr(scores[start : start + 6][1::2], chance[start : start + 6][1::2])[0] for start in (0, 6)]
    assert found[0.25] == pytest.approx(sum(both) / 2, abs=1e-5)


def test_wrong_settings_and_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected exponent and learning_rate above 0"):
        LatentRewardTask(exponent=0)
    with pytest.raises(ValueError, match="expected channels as multiples of 8"):
        LatentRewardTask(channels=(12, 16))
    for options in ({"num_chunks": 0}, {"num_val_chunks": 0}, {"batch_size": 0}, {"swapped": 1.0}):
        with pytest.raises(ValueError, match=f"expected {next(iter(options)).replace('swapped', 'swapped in')}"):
            _data(tmp_path, **options)
    (tmp_path / "config.json").write_text(json.dumps({"kind": "another"}))
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ValueError, match=r"LatentImageReward expected config\.json as LatentRewardTask writes it"):
            LatentImageReward(str(folder))
