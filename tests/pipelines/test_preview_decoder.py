"""Preview decoders: cheaper scores on the way, the same finished samples and the same target."""

import copy
import math

import pytest
import torch
from tiny import tiny_ddpm, tiny_stable_diffusion

import fklit
from fklit.pipelines.decode import decode_latents
from fklit.pipelines.fast_decoder import FastDecoder, SlowPreviewWarning
from fklit.pipelines.preview_decoder import PreviewDecoder, PreviewTap, UnfitPreviewError, scheduler_latents
from fklit.pipelines.tiny_decoder import PreviewMismatchWarning, TinyDecoder
from fklit.sampling.settings import RewardSettings
from fklit.steering.preview_agreement import preview_agreement

pytestmark = pytest.mark.filterwarnings("ignore::fklit.pipelines.fast_decoder.SlowPreviewWarning")
CALL = {"num_inference_steps": 6, "guidance_scale": 1.0, "eta": 1.0}
SCHEDULE = fklit.Schedule(indices=(1, 2, 3))


def redness(images):
    return 100 * (images[:, 0] - images[:, 1]).mean((1, 2))


def _steer(pipeline, **options):
    given = {"reward": redness, "reward_scale": 1.0, "reward_schedule": SCHEDULE, "pipeline_kwargs": CALL, **options}
    return fklit.steer(pipeline, ["a cat", "a dog"], **given)


@pytest.fixture(scope="module")
def pipeline():
    return tiny_stable_diffusion()


def _tiny(latent_channels=4, blocks=2, **options):
    from diffusers import AutoencoderTiny

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        widths = (8,) * blocks
        return AutoencoderTiny(
            latent_channels=latent_channels,
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            num_encoder_blocks=(1,) * blocks,
            num_decoder_blocks=(1,) * blocks,
            **options,
        )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_finished_samples_are_the_same_bits_where_nothing_is_steered(pipeline, dtype):
    own = _steer(pipeline, reward_scale=0.0)
    preview = _steer(pipeline, reward_scale=0.0, preview_decoder=FastDecoder(dtype))
    assert torch.equal(preview.samples, own.samples) and torch.equal(preview.rewards, own.rewards)
    assert preview.reward_path.shape == own.reward_path.shape
    assert not torch.equal(preview.reward_path, own.reward_path) or dtype == "float32"
    torch.testing.assert_close(preview.reward_path, own.reward_path, atol=2.0 if dtype == "bfloat16" else 0.3, rtol=0)
    assert (own.budget.decodes, own.budget.preview_decodes) == (8 * 4, 0)
    assert (preview.budget.decodes, preview.budget.preview_decodes) == (8, 8 * 3)
    assert preview.record(0)["budget"]["preview_decodes"] == 12 and preview.record(0)["preview_decoder"] == repr(
        FastDecoder(dtype)
    )


def test_weights_are_closed_by_the_finished_rewards(pipeline):
    """Importance sampling: log Z is the log mean of exp(scale r) of the full decoder's pictures, whatever was seen."""
    result = _steer(pipeline, ess_threshold=0.0, preview_decoder=FastDecoder())
    expected = result.rewards.logsumexp(1) - math.log(4)
    torch.testing.assert_close(result.log_z, expected, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(result.rewards.flatten(), redness(result.samples.flatten(0, 1)).double())


def test_float32_in_another_layout_shows_the_same_pictures(pipeline):
    latents = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    full = decode_latents(pipeline, latents)
    tap = PreviewTap(pipeline, FastDecoder("float32"), max_batch=2)
    with tap.installed():
        seen = decode_latents(pipeline, latents)
    assert tap.decodes == 5 and "decode" not in pipeline.vae.__dict__
    torch.testing.assert_close(seen, full, atol=1e-6, rtol=0)
    assert pipeline.vae.dtype == torch.float32 and pipeline.vae.encoder is not None, "the pipeline's own is untouched"


def test_chunks_have_the_same_bits_in_every_batch(pipeline):
    latents = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    seen = []
    for rows in (latents, latents[3:]):
        with PreviewTap(pipeline, FastDecoder(), max_batch=2).installed():
            seen.append(decode_latents(pipeline, rows))
    assert torch.equal(seen[0][3:], seen[1])


def test_a_tiny_decoder_gets_latents_as_the_scheduler_holds_them(pipeline):
    """Its own scale and shift are those of a pipeline of which it is the autoencoder."""
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    tiny = _tiny(scaling_factor=0.7, shift_factor=0.2)
    other = copy.copy(pipeline)
    other.__dict__["vae"] = tiny
    expected = decode_latents(other, latents)
    with PreviewTap(pipeline, TinyDecoder(tiny), max_batch=None).installed(), pytest.warns(PreviewMismatchWarning):
        seen = decode_latents(pipeline, latents)
    torch.testing.assert_close(seen, expected, atol=1e-6, rtol=0)


def test_a_tiny_decoder_from_a_folder_steers(pipeline, tmp_path):
    _tiny().save_pretrained(tmp_path / "tiny")
    decoder = TinyDecoder(tmp_path / "tiny")
    own = _steer(pipeline, reward_scale=0.0)
    with pytest.warns(PreviewMismatchWarning, match="give the tiny autoencoder of this family"):
        seen = _steer(pipeline, reward_scale=0.0, preview_decoder=decoder)
    assert torch.equal(seen.samples, own.samples)
    assert (seen.budget.decodes, seen.budget.preview_decodes) == (8 + 1, 24), "one picture decoded both ways"
    again = _steer(pipeline, reward_scale=0.0, preview_decoder=decoder)
    assert again.budget.decodes == 8, "once for a decoder"


def test_flow_models_decode_previews_by_their_own_call():
    """FLUX packs its latents; its call unpacks them in front of whatever stands for its autoencoder."""
    from tiny_families import flux

    pipeline, arguments = flux.ROWS[0].make()
    options = {
        "reward": redness,
        "reward_scale": 0.0,
        "reward_schedule": fklit.Schedule(indices=(0, 1)),
        "num_particles": 2,
    }
    own = fklit.steer(pipeline, "a cat", pipeline_kwargs=arguments, **options)
    seen = fklit.steer(pipeline, "a cat", pipeline_kwargs=arguments, preview_decoder=FastDecoder("float32"), **options)
    assert torch.equal(seen.samples, own.samples) and seen.budget.preview_decodes == 4
    torch.testing.assert_close(seen.reward_path, own.reward_path, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "config",
    [
        {"scaling_factor": 0.5},
        {"scaling_factor": 0.5, "shift_factor": 0.3},
        {"scaling_factor": 0.5, "latents_mean": [0.1, 0.2], "latents_std": [2.0, 3.0]},
    ],
)
def test_scaling_is_undone(config):
    from types import SimpleNamespace

    from fklit.pipelines.decode import _unscale

    vae = SimpleNamespace(config=config)
    latents = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(scheduler_latents(vae, _unscale(vae, latents)), latents)
    with pytest.raises(UnfitPreviewError, match="scaling_factor"):
        scheduler_latents(SimpleNamespace(config={}), latents)


def test_what_does_not_fit_is_refused(pipeline):
    with pytest.raises(UnfitPreviewError, match=r"expected a pipeline with an autoencoder .* got DDPMPipeline"):
        PreviewTap(tiny_ddpm(), FastDecoder(), max_batch=None)
    with pytest.raises(UnfitPreviewError, match="4 and 3 channels, as AutoencoderKL has them, got 8 and 3"):
        _steer(pipeline, preview_decoder=TinyDecoder(_tiny(latent_channels=8)))
    with pytest.raises(UnfitPreviewError, match=r"2 times as wide as their latents.* got 4 times"):
        _steer(pipeline, preview_decoder=TinyDecoder(_tiny(blocks=3)))
    with pytest.raises(UnfitPreviewError, match="expected an AutoencoderTiny, got AutoencoderKL"):
        _steer(pipeline, preview_decoder=TinyDecoder(pipeline.vae))
    large = tiny_stable_diffusion()
    large.vae.decoder.conv_in.weight.data.mul_(1e5)
    with pytest.raises(UnfitPreviewError, match="overflow of AutoencoderKL; use dtype='bfloat16'"):
        _steer(large, preview_decoder=FastDecoder("float16"))
    with pytest.raises(ValueError, match="dtype expected"):
        FastDecoder("half")
    with pytest.raises(TypeError, match="preview_decoder expected a PreviewDecoder, got a str"):
        RewardSettings(reward=redness, preview_decoder="half")
    with pytest.raises(ValueError, match="got both"):
        RewardSettings(reward=redness, decode=lambda x: x, preview_decoder=FastDecoder())
    assert "decode" not in pipeline.vae.__dict__, "also after an error"


def test_a_decoder_of_ones_own_must_return_a_picture_a_row(pipeline):
    class Short(PreviewDecoder):
        def prepare(self, vae, full):
            return lambda z: full(z)[:1]

    with pytest.raises(UnfitPreviewError, match="expected pictures of 8 latents"):
        _steer(pipeline, preview_decoder=Short())


def test_agreement_is_measured_on_the_predictions_of_a_run(pipeline):
    prompts = ["a cat", "a dog"]
    options = {"reward": redness, "num_particles": 4, "reward_schedule": SCHEDULE, "pipeline_kwargs": CALL}
    same = preview_agreement(pipeline, prompts, preview_decoder=FastDecoder("float32"), **options)
    assert same.steps == (1, 2, 3) and float(same.max_difference.max()) < 1e-6
    assert float(same.reward_correlation.min()) > 1 - 1e-6
    half = preview_agreement(pipeline, prompts, preview_decoder=FastDecoder(), **options)
    assert 1e-4 < float(half.mean_difference.max()) < float(half.max_difference.max()) < 0.1
    own, seen = (_steer(pipeline, reward_scale=0.0, preview_decoder=d).reward_path for d in (None, FastDecoder()))
    centered = [(rewards - rewards.mean(2, keepdim=True)).flatten(1) for rewards in (own, seen)]
    expected = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(*centered, strict=True)]
    torch.testing.assert_close(half.reward_correlation, torch.stack(expected), atol=1e-6, rtol=0)
    torch.testing.assert_close(half.reward_difference, (own - seen).square().mean((1, 2)).sqrt(), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="num_particles expected at least 2"):
        preview_agreement(pipeline, prompts, preview_decoder=FastDecoder(), reward=redness, num_particles=1)


@pytest.mark.parametrize(
    ("dtype", "units", "slow"),
    [
        ("bfloat16", (), True),
        ("bfloat16", ("amx_bf16",), False),
        ("bfloat16", ("avx512_bf16",), False),
        ("float16", ("amx_bf16",), True),
        ("float32", (), False),
    ],
)
def test_a_processor_without_the_units_is_told(pipeline, monkeypatch, recwarn, dtype, units, slow):
    found = {"architecture": "x86_64", **dict.fromkeys(units, True)}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    if slow:
        with pytest.warns(SlowPreviewWarning, match=f"units for {dtype}.*use dtype='float32'"):
            FastDecoder(dtype).prepare(pipeline.vae, lambda z: z)
    else:
        FastDecoder(dtype).prepare(pipeline.vae, lambda z: z)
        assert not recwarn.list
