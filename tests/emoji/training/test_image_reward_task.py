"""The recipe of the shipped reward: a few steps of the debug configuration, the folder, resuming, and learning."""

import sys
from pathlib import Path

import pytest
import torch
import yaml
from fake_art import write_fake_art
from lightning.pytorch import Trainer
from real_scenes import real_scenes

from fklit.emoji.caption_group_data import CaptionGroupsDataModule
from fklit.emoji.training.degrade import Degrade
from fklit.emoji.training.denoised_means import DenoisedMeans
from fklit.emoji.training.image_reward import ImageRewardTask
from fklit.emoji.training.regenerate import Regenerate
from fklit.emoji.training.trajectories import Trajectories
from fklit.rewards import ImageReward

CONFIGS = Path(__file__).parents[3] / "configs"
SMALL = {"width": 32, "stem": (8, 16, 32), "vision_layers": 1, "text_layers": 1, "heads": 2}


@pytest.fixture(scope="module")
def art_dir(tmp_path_factory):
    return write_fake_art(tmp_path_factory.mktemp("art"))


def run(monkeypatch, folder, art_dir, *words):
    """`fklit fit` of the debug configuration, into `folder`."""
    from lightning.pytorch import LightningDataModule, LightningModule
    from lightning.pytorch.cli import LightningCLI

    monkeypatch.setattr(sys, "argv", ["fklit"])  # Lightning warns of words from both sides
    given = [
        "fit", f"--config={CONFIGS}/debug/image_reward.yaml", f"--data.data_dir={art_dir}",
        f"--model.export_dir={folder}/out", f"--trainer.default_root_dir={folder}",
        f"--trainer.callbacks.dirpath={folder}/checkpoints", *words,
    ]  # fmt: skip
    return LightningCLI(
        LightningModule, LightningDataModule, subclass_mode_model=True, subclass_mode_data=True,
        save_config_callback=None, args=given,
    )  # fmt: skip


def score(task, images, prompts):
    """Log probabilities by the task's own parts, each picture with its own prompt."""
    tokens = task.tokenizer(prompts, padding="max_length", max_length=task.max_length, return_tensors="pt").input_ids
    with torch.no_grad():
        hidden = task.network.read(tokens, task.see(images))
        return torch.nn.functional.logsigmoid(task.network.head(hidden[:, 0])[:, 0])


# The scenes are an endless independent stream: there is no place in it to resume at.
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # which is what resuming means
def test_it_trains_resumes_and_is_read_by_the_reward_class(monkeypatch, tmp_path, art_dir):
    cli = run(monkeypatch, tmp_path, art_dir)
    assert cli.trainer.global_step == 2
    assert {"train/patch", "train/match", "train/choice", "train/grounding"} <= set(cli.trainer.callback_metrics)
    last = tmp_path / "checkpoints" / "last.ckpt"
    cli = run(monkeypatch, tmp_path, art_dir, "--trainer.max_steps=3", f"--ckpt_path={last}")
    assert cli.trainer.global_step == 3
    assert all(value.isfinite() for value in cli.trainer.callback_metrics.values())
    task = cli.model.eval()
    task.network.half().float()  # the folder holds float16

    reward = ImageReward(str(tmp_path / "out"))
    images = real_scenes()[0][:4]
    prompts = ["a red heart left of a cat", "three frogs", "an unheard of thing", "a fish"]
    scores = reward(images, prompts)
    assert (scores <= 0).all() and len(set(scores.tolist())) == 4
    assert torch.allclose(scores, score(task, images, prompts), atol=1e-6)
    assert reward.typical_range == (-10.0, 0.0) and reward.suggested_scale == 8.0

    # a checkpoint gives the task without any argument
    saved = torch.load(last, weights_only=True)["state_dict"]
    loaded = ImageRewardTask.load_from_checkpoint(last, weights_only=True)
    assert loaded.state_dict().keys() == saved.keys() == task.state_dict().keys()
    assert all(torch.equal(value, saved[name]) for name, value in loaded.state_dict().items())
    assert loaded.model_config == task.model_config and loaded.degrade.blur == 6.0
    assert (loaded.learning_rate, loaded.vision_steps) == (task.learning_rate, 1)
    assert ImageRewardTask.load_from_checkpoint(last, learning_rate=0.5, weights_only=True).learning_rate == 0.5


def test_the_folder_gives_the_scores_of_the_task(tmp_path):
    """With weights large enough that scores differ by far more than float16 rounds."""
    torch.manual_seed(1)
    task = ImageRewardTask(**SMALL, max_length=12).eval()
    with torch.no_grad():
        for parameter in task.network.parameters():
            parameter.mul_(3.0 if parameter.ndim > 1 else 1.0)
    images = real_scenes()[0][:6]
    prompts = ["a red heart left of a cat", "three frogs", "a fish", "a blue book", "a car and a dog", "two suns"]
    expected = score(task, images, prompts)
    assert expected.std() > 0.1
    task.save_folder(tmp_path)
    scores = ImageReward(str(tmp_path))(images, prompts)
    assert torch.allclose(scores, expected, atol=0.02)
    task.network.half().float()
    assert torch.allclose(scores, score(task, images, prompts), atol=1e-5)


def test_tasks_made_in_python_load_from_their_checkpoints_and_start_from_weights(tmp_path):
    """What is in a checkpoint goes before `start_from`, which only gives the weights of a training that begins."""
    parts = {
        "degrade": Degrade(1.0, share=0.25),
        "denoised": DenoisedMeans("fklit:emoji_scenes", 0.5),
        "regenerate": Regenerate("fklit:emoji_scenes", 0.5, steps=3),
    }
    first, second = ImageRewardTask(**parts, **SMALL), ImageRewardTask(**parts, **SMALL)
    assert not any(name.startswith(tuple(parts)) for name in first.state_dict())
    first.save_folder(tmp_path)
    second.start_from = str(tmp_path / "model.safetensors")
    second.setup("fit")
    for name, value in first.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name].half(), value.half())
    task = ImageRewardTask(start_from=second.start_from, **parts, **SMALL)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_steps=0)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    loaded = ImageRewardTask.load_from_checkpoint(tmp_path / "task.ckpt", weights_only=True)
    loaded.setup("test")
    assert all(torch.equal(value, task.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert loaded.degrade.blur == 1.0 and loaded.denoised.share == 0.5 and loaded.regenerate.steps == 3


def test_the_log_odds_of_a_group_are_those_of_each_pair(art_dir):
    torch.manual_seed(0)
    task = ImageRewardTask(**SMALL).eval()
    data = CaptionGroupsDataModule(art_dir, num_groups=3)
    data.setup("fit")
    batch = data.collate([data.train_set[index] for index in range(3)])
    seen = task.see(batch["pictures"].flatten(0, 1).float() / 255)
    with torch.no_grad():
        logits, hidden = task.match(seen.view(3, 4, *seen.shape[1:]), batch["tokens"])
    assert logits.shape == (3, 4, 2) and hidden.shape == (3, 4, 2, 16, 32)
    for group, picture, caption in ((0, 0, 0), (1, 3, 1), (2, 2, 0)):
        image = batch["pictures"][group, picture][None].float() / 255
        alone = score(task, image, [batch["captions"][group][caption]])
        odds = torch.nn.functional.logsigmoid(logits[group, picture, caption])
        assert torch.allclose(alone[0], odds, atol=1e-5)


def test_pictures_drawn_again_and_denoised_predictions_are_learned_from(art_dir):
    """One step with every part: finite losses, and gradients for every weight of the network."""
    torch.manual_seed(0)
    task = ImageRewardTask(
        denoised=DenoisedMeans("fklit:emoji_scenes", 0.25),
        regenerate=Regenerate("fklit:emoji_scenes", 1.0, lowest=0.6, steps=3),
        trajectories=Trajectories("fklit:emoji_scenes", 2, 2, steps=3, kept=2, first=0.0, last=1.0),
        vision_steps=0, **SMALL,
    )  # fmt: skip
    logged = {}
    task.log_dict = logged.update
    data = CaptionGroupsDataModule(art_dir, num_groups=2)
    data.setup("fit")
    loss = task.training_step(data.collate([data.train_set[index] for index in range(2)]), 0)
    loss.backward()
    assert set(logged) == {"train/patch", "train/match", "train/choice", "train/grounding", "train/trajectory"}
    assert loss.item() == pytest.approx(sum(value.item() for value in logged.values()), rel=1e-5)
    for name, parameter in task.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_what_is_foreseen_is_the_score_of_the_final_picture_of_the_same_run(art_dir):
    """The loss by hand, from the same draws: no gradient through the target, and no dropout in it."""
    trajectories = Trajectories("fklit:emoji_scenes", 2, 2, steps=3, kept=2, first=0.0, last=1.0)
    task = ImageRewardTask(trajectories=trajectories, vision_steps=0, **SMALL).eval()
    data = CaptionGroupsDataModule(art_dir, num_groups=3)
    data.setup("fit")
    batch = data.collate([data.train_set[index] for index in range(3)])
    torch.manual_seed(3)
    loss = task._trajectory_loss(batch, trajectories)
    loss.backward()
    assert not task.training and any(p.grad is not None and p.grad.abs().sum() > 0 for p in task.network.parameters())
    torch.manual_seed(3)
    prompts = [batch["captions"][group][0] for group in (0, 0, 1, 1)]
    final, means = trajectories(prompts, torch.device("cpu"))
    chance = score(task, final, prompts).exp()
    foreseen = torch.stack([score(task, means[:, step], prompts).exp() for step in range(2)], 1)
    expected = -(chance[:, None] * foreseen.log() + (1 - chance[:, None]) * (1 - foreseen).log()).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.slow
def test_it_learns_to_tell_a_relation(art_dir):
    """A fixed group whose captions name the same things: each caption comes to prefer its own picture."""
    data = CaptionGroupsDataModule(art_dir, num_groups=20)
    data.setup("fit")
    batch = next(b for b in (data.collate([data.train_set[index]]) for index in range(20)) if b["only_relation"][0])
    torch.manual_seed(0)
    task = ImageRewardTask(**SMALL, head=(32,), vision_steps=0, word_dropout=0.0).eval()
    task.log_dict = lambda values: None
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3, betas=(0.9, 0.98))

    def match():
        with torch.no_grad():
            seen = task.see(batch["pictures"].flatten(0, 1).float() / 255)
            return task.match(seen[None], batch["tokens"])[0][0]

    for step in range(250):
        optimizer.zero_grad()
        task.training_step(batch, step).backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 9 and torch.equal(match() > 0, batch["truth"][0]):
            break
    odds = match()
    assert torch.equal(odds > 0, batch["truth"][0]), odds
    assert odds[0, 0] > odds[1, 0] and odds[1, 1] > odds[0, 1]


def test_the_production_file_differs_from_its_smoke_test_in_size_only():
    full, debug = (yaml.safe_load((CONFIGS / kind / "image_reward.yaml").read_text()) for kind in ("assets", "debug"))
    for part in ("model", "data"):
        assert full[part]["class_path"] == debug[part]["class_path"]
    assert set(debug["data"]["init_args"]) <= set(full["data"]["init_args"])
    assert set(debug["model"]["init_args"]) - set(full["model"]["init_args"]) == {"heads", "warmup_steps"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.0}, "expected learning_rate above 0, .*, got 0.0, 0.02 and 500; change"),
        ({"word_dropout": 1.0}, r"word_dropout in \[0, 1\) .*, got 0.001, 1.0 and 500"),
        ({"vision_steps": -1}, "vision_steps of at least 0, got 0.001, 0.02 and -1"),
        ({"heads": 3}, "expected width as a multiple of heads .*, got width 32, heads 3"),
        ({"heads": 0}, "expected width as a multiple of heads .*, got width 32, heads 0"),
        ({"text_layers": 0}, "at least one layer in each encoder, got .* text_layers 0"),
        ({"stem": (8, 32)}, r"expected stem widths, .* patches of 8 pixels that end at 32, got \[8, 32\]"),
        ({"stem": (8, 16, 64)}, r"expected stem widths, .* that end at 32, got \[8, 16, 64\]"),
        ({"max_length": 2}, "expected max_length of at least 3, got 2"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ImageRewardTask(**{**SMALL, **settings})


def test_captions_longer_than_the_network_reads_are_refused():
    task = ImageRewardTask(**SMALL, max_length=10)
    with pytest.raises(ValueError, match="expected captions of at most 10 tokens, got 16; give the data module"):
        task.match(torch.zeros(1, 4, 65, 32), torch.zeros(1, 2, 16, dtype=torch.int64))
