"""The recipe of the shipped model, small: autoencoder, latents, text encoder and U-Net, the pipeline folder."""

import copy
import shutil

import pytest
import torch
from fake_art import write_fake_art
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torchmetrics.image import TotalVariation

from fklit.callbacks import MetricsCallback
from fklit.emoji.art import load_art
from fklit.emoji.latents import EncodedScenesDataModule
from fklit.emoji.prompts import all_prompts
from fklit.emoji.scene_data import EmojiScenesDataModule, SceneDataset
from fklit.emoji.training.autoencoder import AutoencoderTask
from fklit.emoji.training.export import export_text_to_image, main
from fklit.emoji.training.sample_prompts import SAMPLE_SCENES
from fklit.emoji.training.text_to_image import TextToImageTask
from fklit.metrics import TAGS, ChosenSamples, RewardMetric
from fklit.rewards import Function

pytestmark = [
    # Lightning's remark on EMA with configure_model is about sharded models, and these are small on purpose.
    pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback with a model:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*is deprecated, use `isinstance:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*is deprecated, use `isinstance:UserWarning"),
]
QUIET = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "limit_val_batches": 1,
}


def redness(images):
    return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))


def small_autoencoder(**settings):
    return AutoencoderTask((8, 8, 8), norm_num_groups=4, warmup_steps=2, **settings)


def small_model(autoencoder, **settings):
    return TextToImageTask(
        str(autoencoder), (16, 16, 16), num_heads=2, text_width=16, text_layers=1, warmup_steps=2, **settings
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Both trainings, a few steps each, as their configurations run them."""
    root = tmp_path_factory.mktemp("recipe")
    art = write_fake_art(root / "emoji")
    torch.manual_seed(0)  # rounding to bfloat16 is judged below, and depends on the weights
    first = Trainer(max_steps=3, enable_checkpointing=False, **QUIET)
    autoencoder = small_autoencoder(export_dir=str(root / "vae"))
    first.fit(autoencoder, EmojiScenesDataModule(art, 4, num_scenes=16, num_val_scenes=8, crowd_share=0.5))
    data = EncodedScenesDataModule(art, 4, autoencoder=str(root / "vae"), num_scenes=16, num_val_scenes=8)
    model = small_model(root / "vae", num_samples=1, export_dir=str(root / "pipeline"))
    trainer = Trainer(max_steps=4, callbacks=[EMAWeightAveraging(decay=0.5)], enable_checkpointing=False, **QUIET)
    trainer.fit(model, data)
    trainer.save_checkpoint(root / "model.ckpt")
    return root, model, data


def test_the_autoencoder_learns_and_keeps_the_scale_of_its_latents(trained):
    from diffusers import AutoencoderKL

    root, _, data = trained
    vae = AutoencoderKL.from_pretrained(root / "vae")
    assert vae.config.scaling_factor != 1.0 and not vae.config.mid_block_add_attention
    latents = torch.stack([item["latent"] for item in data.train_set])
    assert latents.shape == (16, 4, 16, 16)
    assert 0.7 < latents.square().mean().sqrt() < 1.4


def test_latents_are_encoded_once_and_follow_the_weights(trained):
    root, _, data = trained
    stored = {path: path.stat().st_mtime_ns for path in (root / "emoji" / "latents").iterdir()}
    data.prepare_data()
    assert {path: path.stat().st_mtime_ns for path in stored} == stored and len(stored) == 2
    assert data.train_set[3]["prompt"] and data._store(0, 16) in stored
    assert len({data._store(0, 16), data._store(1, 16), data._store(0, 8)}) == 3
    shutil.copytree(root / "vae", root / "other")
    with open(root / "other" / "diffusion_pytorch_model.safetensors", "ab") as file:
        file.write(b" ")
    other = EncodedScenesDataModule(str(root / "emoji"), autoencoder=str(root / "other"))
    assert other._store(0, 16) not in stored


def test_latents_are_those_of_the_captioned_scenes(trained):
    from diffusers import AutoencoderKL

    root, _, data = trained
    vae = AutoencoderKL.from_pretrained(root / "vae").eval()
    scenes = EmojiScenesDataModule(str(root / "emoji"), num_scenes=16, num_val_scenes=8)
    scenes.setup("fit")
    for mine, theirs in ((data.train_set, scenes.train_set), (data.val_set, scenes.val_set)):
        for index in (0, 5):
            with torch.no_grad():
                latent = vae.encode(theirs[index]["image"][None] * 2 - 1).latent_dist.mode()[0]
            assert mine[index]["prompt"] == theirs[index]["prompt"]
            # encoded in bfloat16
            assert (mine[index]["latent"] - latent * vae.config.scaling_factor).abs().max() < 0.1


def test_the_folder_is_a_pipeline_that_draws(trained):
    from diffusers import StableDiffusionPipeline

    root, model, _ = trained
    pipeline = StableDiffusionPipeline.from_pretrained(root / "pipeline")
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.scheduler.config.prediction_type == "v_prediction" and pipeline.safety_checker is None
    assert pipeline.tokenizer.model_max_length == 24
    assert pipeline.unet.dtype == pipeline.text_encoder.dtype == pipeline.vae.dtype == torch.float32
    images = [
        pipeline("a cat", num_inference_steps=3, eta=eta, generator=torch.manual_seed(0), output_type="pt").images
        for eta in (0.0, 1.0)
    ]
    assert all(image.shape == (1, 3, 64, 64) and image.isfinite().all() for image in images)
    assert {path.name for path in (root / "pipeline" / "tokenizer").iterdir()} >= {"vocab.json", "merges.txt"}
    settings = [path.read_text() for path in (root / "pipeline").rglob("*.json")]
    assert len(settings) >= 6 and not any("_name_or_path" in text or str(root) in text for text in settings)
    # The folder holds the averaged weights in float16, and the networks of the task were not rounded by writing it.
    mine, written = model.unet.conv_in.weight, pipeline.unet.conv_in.weight
    assert torch.equal(mine.half().float(), written) and not torch.equal(mine, written)


def test_a_checkpoint_gives_the_same_folder(trained, capsys):
    from safetensors.torch import load_file

    root, _, _ = trained
    main(["text_to_image", str(root / "model.ckpt"), str(root / "again")])
    assert "wrote" in capsys.readouterr().out
    name = "unet/diffusion_pytorch_model.safetensors"
    one, other = load_file(root / "pipeline" / name), load_file(root / "again" / name)
    assert all(torch.equal(one[key], other[key]) for key in one)
    with pytest.raises(SystemExit, match=r"expected a checkpoint, got nowhere\.ckpt"):
        main(["text_to_image", "nowhere.ckpt", "x"])
    export_text_to_image(root / "model.ckpt", root / "third", autoencoder=root / "vae")
    assert (root / "third" / "model_index.json").is_file()


@pytest.mark.slow
def test_an_autoencoder_is_exported_from_its_checkpoint(trained, capsys, monkeypatch):
    from diffusers import AutoencoderKL

    root, _, _ = trained
    task = small_autoencoder(learning_rate=5e-3)
    trainer = Trainer(max_steps=1, enable_checkpointing=False, **QUIET)
    trainer.fit(task, EmojiScenesDataModule(str(root / "emoji"), 4, num_scenes=4, num_val_scenes=4))
    trainer.save_checkpoint(root / "autoencoder.ckpt")
    loaded = AutoencoderTask.load_from_checkpoint(root / "autoencoder.ckpt", weights_only=True)
    assert loaded.learning_rate == 5e-3 and loaded.block_out_channels == (8, 8, 8)
    main(["autoencoder", str(root / "autoencoder.ckpt"), str(root / "exported"), "--data_dir", str(root / "emoji")])
    written = AutoencoderKL.from_pretrained(root / "exported").eval()
    assert f"scaling_factor {written.config.scaling_factor:.4f}" in capsys.readouterr().out
    assert all(torch.equal(value, task.vae.state_dict()[key]) for key, value in written.state_dict().items())
    scenes = SceneDataset(load_art(root / "emoji"), 200, seed=2)
    with torch.no_grad():
        images = torch.stack([scenes[index]["image"] for index in range(200)])
        latents = written.encode(images * 2 - 1).latent_dist.mode() * written.config.scaling_factor
    assert float(latents.square().mean()) == pytest.approx(1, rel=0.05)


def test_metrics_see_the_same_prompts_and_noise_under_the_averaged_weights(trained):
    root, _, data = trained
    kinds = {"red": RewardMetric(Function(redness), by="tag"), "seen": ChosenSamples(TotalVariation())}
    logged = {}
    for averaged in (True, False):
        callbacks = [EMAWeightAveraging(decay=0.5)] * averaged + [MetricsCallback(kinds)]
        torch.manual_seed(0)
        model = small_model(root / "vae", num_samples=3, learning_rate=0.05)
        trainer = Trainer(max_steps=4, callbacks=callbacks, enable_checkpointing=False, **QUIET)
        trainer.fit(model, copy.copy(data))
        logged[averaged] = {name: float(value) for name, value in trainer.callback_metrics.items() if "/red" in name}
        after = Trainer(callbacks=[MetricsCallback(kinds)], **QUIET)  # with the weights that training ends with
        assert after.validate(model, copy.copy(data), verbose=False)[0].items() >= logged[averaged].items()
    assert logged[True].keys() == {"val/red", "val/red/single_object", "val/red/colors"} == logged[False].keys()
    assert abs(logged[True]["val/red"] - logged[False]["val/red"]) > 1e-4
    (tested,) = after.test(model, copy.copy(data), verbose=False)
    assert tested["test/red"] == logged[False]["val/red"], "the same prompts and noise"
    pipeline = model.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(index) for index in range(3)]
    images = pipeline(
        ["a cat", "a red heart", "a butterfly"], num_inference_steps=30, guidance_scale=4.0, generator=generators,
        output_type="pt",
    ).images  # fmt: skip
    assert logged[False]["val/red"] == pytest.approx(float(redness(images).mean()), abs=1e-6)


def test_the_prompts_that_are_drawn_are_those_that_the_judge_reads():
    assert [scene.text for scene in SAMPLE_SCENES][9:11] == ["a blue square and a red book", "a rocket left of a sun"]
    assert len({scene.text for scene in SAMPLE_SCENES}) == 16 and {scene.tag for scene in SAMPLE_SCENES} == set(TAGS)
    known = {tag: {prompt.text for prompt in all_prompts(tag)} for tag in TAGS}
    free = {"two dogs", "four stars"}  # of any color
    assert all(scene.text in known[scene.tag] | free for scene in SAMPLE_SCENES)


def test_metrics_without_pictures_are_refused():
    with pytest.raises(ValueError, match="expected a task that returns samples or classes, got TextToImageTask"):
        MetricsCallback({"red": RewardMetric(Function(redness))}).setup(
            Trainer(**QUIET), TextToImageTask("x", num_samples=0), "fit"
        )


def test_a_run_goes_on_from_its_checkpoint(trained):
    root, _, data = trained
    data = copy.copy(data)
    model = small_model(root / "vae", num_samples=0)
    trainer = Trainer(max_steps=6, callbacks=[EMAWeightAveraging(decay=0.5)], enable_checkpointing=False, **QUIET)
    trainer.fit(model, data, ckpt_path=root / "model.ckpt", weights_only=True)
    assert trainer.global_step == 6


@pytest.mark.slow
def test_the_velocity_is_learned(trained):
    """One batch again and again: the error falls far below that of predicting nothing, which is about 1."""
    root, _, data = trained
    model = small_model(root / "vae")
    model.configure_model()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    batch = torch.stack([data.train_set[index]["latent"] for index in range(4)])
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(batch.shape, generator=generator)
    timestep = torch.tensor([100, 400, 700, 990])
    errors = []
    for _ in range(40):
        loss = model.velocity_error(batch, ["a cat", "", "two cats", "a dog"], noise, timestep)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert errors[-1] < 0.4 * errors[0]
    assert model.text_encoder.get_input_embeddings().weight.grad.abs().sum() > 0


def test_captions_are_dropped_at_the_given_rate(trained, monkeypatch):
    root, _, _ = trained
    model = small_model(root / "vae", caption_dropout=0.25)
    model.configure_model()
    seen = []
    monkeypatch.setattr(model, "velocity_error", lambda latent, prompts, *_: seen.extend(prompts) or latent.sum())
    monkeypatch.setattr(model, "log", lambda *args, **kwargs: None)
    torch.manual_seed(0)
    model.training_step({"latent": torch.zeros(400, 4, 16, 16), "prompt": ["a cat"] * 400}, 0)
    assert 70 < seen.count("") < 130 and seen.count("a cat") == 400 - seen.count("")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: TextToImageTask("x", (16, 16), attention=(True,)),
            "attention for each of 2 resolutions, got 1",
        ),
        (lambda: TextToImageTask("x", caption_dropout=1.0), r"expected caption_dropout in \[0, 1\), got 1.0"),
        (lambda: TextToImageTask("x", learning_rate=0.0), "expected learning_rate above 0, got 0.0"),
        (
            lambda: AutoencoderTask((12, 16), norm_num_groups=8),
            r"divide all of block_out_channels=\(12, 16\), got 8",
        ),
        (lambda: AutoencoderTask(kl_weight=-1.0), "of at least 0 and learning_rate above 0, got -1.0, 0.5 and 0.002"),
        (lambda: EncodedScenesDataModule(batch_size=0), "expected batch_size of at least 1, got 0"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_missing_autoencoder_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected an autoencoder in .*configs/assets/autoencoder\.yaml"):
        EncodedScenesDataModule(autoencoder=str(tmp_path)).prepare_data()
