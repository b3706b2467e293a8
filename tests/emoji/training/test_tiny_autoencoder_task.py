"""The preview decoder's training: it nears what the autoencoder shows, resumes, and what it writes is loaded."""

import pytest
import torch
from lightning.pytorch import Trainer

from fklit.emoji.latent_trajectory_data import LatentTrajectoriesDataModule
from fklit.emoji.training.tiny_autoencoder import TinyAutoencoderTask
from fklit.emoji.training.trajectories import Trajectories
from fklit.pipelines.tiny_decoder import TinyDecoder

SHIPPED = "fklit:emoji_scenes"
pytestmark = [
    pytest.mark.filterwarnings("ignore:The '(train|val)_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    trajectories = Trajectories(SHIPPED, 2, 2, steps=3, kept=3, first=0.0, last=1.0)
    return LatentTrajectoriesDataModule(
        trajectories, folder=str(tmp_path_factory.mktemp("chunks")), num_chunks=1, num_val_chunks=1, batch_size=4
    )


def _task(**options):
    torch.manual_seed(0)
    given = {"channels": 8, "decoder_blocks": (1, 1, 0), "rows": 4, "warmup_steps": 1, "reward": None, **options}
    return TinyAutoencoderTask(SHIPPED, **given)


def test_both_splits_have_captions_for_the_chunks_of_the_shipped_settings():
    many = LatentTrajectoriesDataModule(Trajectories(SHIPPED, 8, 8, steps=30, kept=24, first=0.2, last=1.0))
    found = {split: many.captions(split) for split in ("tune", "test")}
    assert [len(set(captions)) for captions in found.values()] == [512, 512]
    assert not set(found["tune"]) & set(found["test"])


def test_the_loss_is_that_of_the_pictures_of_the_autoencoder():
    task = _task(reward="fklit:emoji_reward")
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    vae = task._pipeline[0].load(torch.device("cpu")).vae
    with torch.no_grad():
        wanted = (vae.decode(latents / vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
        made = task.network.decode(latents).sample / 2 + 0.5
        terms = task.losses(latents)
        tokens = task.reward.see(wanted)
        seen = (task.reward.see(made.clamp(0, 1)) - tokens).square().mean() / tokens.var()
        back = (task.network.encode(wanted * 2 - 1).latents - latents).square().mean()
    assert float(terms["absolute"]) == pytest.approx(float((made - wanted).abs().mean()), rel=1e-5)
    assert float(terms["squared"]) == pytest.approx(float((made - wanted).square().mean()), rel=1e-5)
    assert float(terms["tokens"]) == pytest.approx(float(seen), rel=1e-5)
    assert float(terms["latents"]) == pytest.approx(float(back), rel=1e-5)


def test_it_learns_to_show_what_the_autoencoder_shows():
    task = _task()
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(task.network.parameters(), lr=1e-2)
    before = float(task.losses(latents)["squared"].detach())
    for _ in range(25):
        optimizer.zero_grad()
        task.losses(latents)["squared"].backward()
        optimizer.step()
    assert float(task.losses(latents)["squared"].detach()) < 0.5 * before


def test_it_trains_resumes_and_is_loaded_as_a_preview_decoder(data, tmp_path):
    folder = tmp_path / "tiny"
    options = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False, "max_epochs": -1}
    options |= {"enable_model_summary": False, "enable_checkpointing": False, "limit_val_batches": 1}
    options |= {"num_sanity_val_steps": 0, "default_root_dir": str(tmp_path)}
    task = _task(export_dir=str(folder), reward="fklit:emoji_reward")
    trainer = Trainer(max_steps=2, **options)
    trainer.fit(task, datamodule=data)
    assert {"train/squared", "train/tokens", "train/latents"} <= set(trainer.logged_metrics)
    trainer.save_checkpoint(tmp_path / "some.ckpt")
    assert all(name.startswith("network.") for name in task.state_dict())
    again = TinyAutoencoderTask.load_from_checkpoint(tmp_path / "some.ckpt", weights_only=True)
    Trainer(max_steps=3, **options).fit(again, datamodule=data, ckpt_path=tmp_path / "some.ckpt", weights_only=True)
    vae = task._pipeline[0].load(torch.device("cpu")).vae
    latents = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="expected TinyDecoder"):  # two steps teach nothing
        preview = TinyDecoder(str(folder)).prepare(vae, lambda z: vae.decode(z, return_dict=False)[0])
        found = preview(latents / vae.config.scaling_factor)
    wanted = again.network.half().float().decode(latents, return_dict=False)[0]
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=1e-3)


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="expected 4 latent_channels and decoder_blocks at 3 sizes"):
        _task(decoder_blocks=(1, 1)).setup("fit")
    with pytest.raises(ValueError, match="got 3 and 3"):
        _task(latent_channels=3).setup("fit")
    with pytest.raises(ValueError, match="channels and rows of at least 1"):
        _task(rows=0)
