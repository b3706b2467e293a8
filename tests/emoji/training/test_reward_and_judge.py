"""The recipes of the shipped reward and judge: data, losses, a few steps from the debug configurations, the folders."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_art import write_fake_art
from lightning.pytorch import Trainer

from fklit.emoji.art import load_art
from fklit.emoji.boxes import MAX_OBJECTS, BoxDataset, EmojiBoxesDataModule
from fklit.emoji.distractors import distractor
from fklit.emoji.hard_negatives import fulfills, hard_negative
from fklit.emoji.pairs import EmojiPairsDataModule, PairDataset, collate_pairs
from fklit.emoji.scenes import place, sample_prompt, scene_rng
from fklit.emoji.training.clip import ClipTask
from fklit.emoji.training.contrastive import contrastive_loss
from fklit.emoji.training.degrade import Degrade
from fklit.emoji.training.detector import DetectorTask
from fklit.metrics import Judge
from fklit.metrics.geneval import TAGS
from fklit.rewards import CLIPScore

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture(scope="module")
def art_dir(tmp_path_factory):
    return write_fake_art(tmp_path_factory.mktemp("art"))


@pytest.fixture(scope="module")
def art(art_dir):
    return load_art(art_dir)


def run(monkeypatch, *words, command="fit"):
    """`fklit fit` as LightningCLI runs it."""
    monkeypatch.setattr(sys, "argv", ["fklit"])  # Lightning warns of words from both sides
    from lightning.pytorch import LightningDataModule, LightningModule
    from lightning.pytorch.cli import LightningCLI

    return LightningCLI(
        LightningModule, LightningDataModule, subclass_mode_model=True, subclass_mode_data=True,
        save_config_callback=None, args=[command, *words],
    )  # fmt: skip


def overrides(folder, art_dir):
    return [
        f"--data.data_dir={art_dir}", f"--model.export_dir={folder}/out", f"--trainer.default_root_dir={folder}",
        f"--trainer.callbacks.dirpath={folder}/checkpoints",
    ]  # fmt: skip


def test_every_scene_fulfills_its_prompt_and_no_hard_negative():
    for index in range(400):
        rng = scene_rng(1, index)
        prompt = sample_prompt(rng)
        scene = place(prompt, rng)
        assert fulfills(scene, prompt), prompt.text
        other = hard_negative(prompt, rng)
        assert other.text != prompt.text
        assert fulfills(place(other, rng), other), other.text


def test_distractor_is_a_patch(art):
    for seed in range(60):
        patch = distractor(np.random.default_rng(seed), art, 24)
        assert patch.shape == (24, 24, 4) and patch.dtype == np.float32
        assert patch.min() >= -1e-5 and patch.max() <= 1 + 1e-5


def test_boxes_hold_what_is_painted(art):
    data = BoxDataset(art, 50, seed=3)
    for index in range(50):
        item = data[index]
        again = data[index]
        assert torch.equal(item["image"], again["image"])  # a pure function of seed and index
        assert item["image"].shape == (3, 64, 64) and item["classes"].shape == (MAX_OBJECTS,)
        for kind, box in zip(item["classes"], item["boxes"].int().tolist(), strict=True):
            if kind >= 0:
                left, top, right, bottom = box
                assert 0 <= left < right <= 64 and 0 <= top < bottom <= 64
                assert (item["image"][:, top:bottom, left:right] < 0.95).any()


def test_the_truth_of_a_batch(art):
    groups = [PairDataset(art, 8, seed=4)[index] for index in range(8)]
    batch = collate_pairs(groups)
    assert batch["images"].shape == (24, 3, 64, 64) and len(batch["prompts"]) == 16
    scenes = [group.scenes[0] for group in groups] + [group.scenes[1] for group in groups]
    expected = [[fulfills(scene, other.prompt) for other in scenes] for scene in scenes]
    assert batch["truth"][:16].tolist() == expected
    assert batch["truth"].diagonal().all()
    assert not batch["truth"][16:].any()  # nothing describes a corrupted scene


def test_the_contrastive_loss_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(5, 4, generator=generator), dim=-1)
    texts = torch.nn.functional.normalize(torch.randn(3, 4, generator=generator), dim=-1)
    truth = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 0, 0]]).bool()
    logits = 7.0 * images @ texts.T

    def side(scores, partners):
        losses = []
        for row, true in zip(scores, partners, strict=True):
            if true.any():
                losses.append(-(row.log_softmax(0)[true]).mean())
        return torch.stack(losses).mean()

    expected = (side(logits, truth) + side(logits.T, truth.T)) / 2
    assert torch.allclose(contrastive_loss(images, texts, truth, scale=torch.tensor(7.0)), expected)


# The scenes are an endless independent stream: there is no place in it to resume at.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # which is what resuming means
def test_the_reward_trains_resumes_and_is_read_by_the_reward_class(monkeypatch, tmp_path, art_dir):
    words = [f"--config={CONFIGS}/debug/clip.yaml", *overrides(tmp_path, art_dir)]
    run(monkeypatch, *words)
    cli = run(monkeypatch, *words, "--trainer.max_steps=3", f"--ckpt_path={tmp_path}/checkpoints/last.ckpt")
    assert cli.trainer.global_step == 3
    reward = CLIPScore(str(tmp_path / "out"))
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    prompts = ["a red heart left of a cat", "three frogs", "an unheard of thing"]
    scores = reward(images, prompts)
    task = cli.model.eval()
    with torch.no_grad():
        embedded, texts = task.embed(images, prompts)
    assert torch.allclose(scores, (embedded * texts).sum(-1), atol=2e-3)  # the folder holds float16
    assert reward.suggested_scale == pytest.approx(float(task.model.logit_scale.detach().exp()), rel=1e-2)
    loaded = same_after_loading(task, tmp_path / "checkpoints" / "last.ckpt")
    assert loaded.model_config == task.model_config and vars(loaded.degrade)["blur"] == 6.0


# The scenes are an endless independent stream: there is no place in it to resume at.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # which is what resuming means
def test_the_judge_trains_resumes_and_is_read_by_the_judge_class(monkeypatch, tmp_path, art_dir):
    words = [f"--config={CONFIGS}/debug/detector.yaml", *overrides(tmp_path, art_dir)]
    run(monkeypatch, *words)
    cli = run(monkeypatch, *words, "--trainer.max_steps=3", f"--ckpt_path={tmp_path}/checkpoints/last.ckpt")
    assert cli.trainer.global_step == 3
    judge = Judge(str(tmp_path / "out"))
    heat, _ = judge.load()(torch.rand(1, 3, 64, 64))
    assert heat.shape == (1, 40, 16, 16)
    assert judge.settings["threshold"] == 0.4
    loaded = same_after_loading(cli.model, tmp_path / "checkpoints" / "last.ckpt")
    assert loaded.widths == (8, 8, 8, 8) and loaded.degrade.jpeg_quality == 40


def same_after_loading(task, path):
    """The task that a checkpoint gives without any argument."""
    averaged = torch.load(path, weights_only=True)["state_dict"]
    loaded = type(task).load_from_checkpoint(path, weights_only=True)
    assert loaded.state_dict().keys() == averaged.keys() == task.state_dict().keys()
    assert all(torch.equal(value, averaged[name]) for name, value in loaded.state_dict().items())
    assert loaded.learning_rate == task.learning_rate and loaded.warmup_steps == task.warmup_steps
    assert type(task).load_from_checkpoint(path, learning_rate=0.5, weights_only=True).learning_rate == 0.5
    return loaded


@pytest.mark.parametrize("kind", ["clip", "detector"])
def test_tasks_made_in_python_load_from_their_checkpoints_and_start_from_weights(tmp_path, kind):
    """What is in a checkpoint goes before `start_from`, which only gives the weights of a training that begins."""
    degrade = Degrade(1.0, share=0.25)
    if kind == "clip":
        make, name = ClipTask, "open_clip_model.safetensors"
        settings = {"embed_dim": 8, "image_size": 32, "vision_layers": (1, 1, 1, 1), "vision_width": 4}
        settings |= {"text_width": 16, "text_layers": 1}
    else:
        make, name, settings = DetectorTask, "model.safetensors", {"widths": (8, 8, 8, 8)}
    first, second = make(degrade=degrade, **settings), make(degrade=degrade, **settings)
    first.save_folder(tmp_path)
    second.start_from = str(tmp_path / name)
    second.setup("fit")
    halves = {key: value.half() for key, value in first.state_dict().items() if value.ndim > 1}
    assert all(torch.equal(second.state_dict()[key].half(), value) for key, value in halves.items())
    task = make(degrade=degrade, start_from=str(tmp_path / name), **settings)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_steps=0)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    loaded = make.load_from_checkpoint(tmp_path / "task.ckpt", weights_only=True)
    loaded.setup("test")
    assert all(torch.equal(value, task.state_dict()[key]) for key, value in loaded.state_dict().items())
    assert loaded.degrade.blur == 1.0 and loaded.degrade.share == 0.25


def test_the_evaluation_set_asks_for_what_is_there_and_for_what_is_not(art):
    from fklit.emoji.evaluation_set import EvaluationDataset
    from fklit.metrics import FoundObject, judge_objects

    evaluation = EvaluationDataset(art, 60, seed=5)
    assert {evaluation[index]["metadata"]["tag"] for index in range(6)} == set(TAGS)
    data = EmojiBoxesDataModule("unused", num_test_images=3)
    assert data.num_test_images == 3
    for index in range(60):
        item = evaluation[index]
        assert item["metadata"]["prompt"] != item["wrong"]["prompt"]
        blind = judge_objects([FoundObject("nothing known", None, (0, 0, 1, 1))], item["metadata"])
        assert not blind.correct


def test_the_evaluation_set_is_judged(monkeypatch, tmp_path, art_dir):
    words = [f"--config={CONFIGS}/debug/detector.yaml", *overrides(tmp_path, art_dir), "--data.num_test_images=6"]
    cli = run(monkeypatch, *words, command="test")
    figures = cli.trainer.callback_metrics
    assert 0.8 <= float(figures["test/missed"]) <= 1  # an untrained network finds nothing
    assert float(figures["test/fooled"]) == 0


def test_production_configurations_differ_from_their_smoke_tests_in_size_only():
    import yaml

    for name in ("clip", "detector"):
        full, debug = (yaml.safe_load((CONFIGS / kind / f"{name}.yaml").read_text()) for kind in ("assets", "debug"))
        assert full["model"]["class_path"] == debug["model"]["class_path"]
        assert full["data"]["class_path"] == debug["data"]["class_path"]
        assert set(debug["data"]["init_args"]) <= set(full["data"]["init_args"]) | {"num_val_images", "num_val_groups"}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DetectorTask(threshold=0.0), r"expected threshold in \(0, 1\), got 0.0"),
        (lambda: DetectorTask(learning_rate=0.0), "expected learning_rate above 0 .*, got 0.0, 10.0"),
        (lambda: ClipTask(image_size=60), "expected image_size as a multiple of 32, got 60"),
        (lambda: ClipTask(word_dropout=1.0), r"word_dropout in \[0, 1\), got 0.002 and 1.0"),
        (lambda: EmojiBoxesDataModule(distractor_share=2.0), r"expected distractor_share in \[0, 1\], got 2.0"),
        (lambda: EmojiBoxesDataModule(batch_size=0), "expected batch_size of at least 1, got 0"),
        (lambda: EmojiPairsDataModule(num_groups=0), "expected num_groups of at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
