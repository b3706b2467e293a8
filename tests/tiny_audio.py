"""Tiny random audio pipelines of the real diffusers classes, with random text encodings in place of encoders."""

from typing import Any

import torch
from tiny_flow import _negative, _perturbed, embedding

_TOKENS = 5


def stable_audio() -> Any:
    """Stable Audio: stereo; its sampler takes its noise from the seed of each sample's generator."""
    from diffusers import (
        AutoencoderOobleck,
        CosineDPMSolverMultistepScheduler,
        StableAudioDiTModel,
        StableAudioPipeline,
    )
    from diffusers.pipelines.stable_audio.modeling_stable_audio import StableAudioProjectionModel

    torch.manual_seed(0)
    transformer = StableAudioDiTModel(
        sample_size=16, in_channels=4, num_layers=2, attention_head_dim=4, num_attention_heads=2,
        num_key_value_attention_heads=2, out_channels=4, cross_attention_dim=8, time_proj_dim=8,
        global_states_input_dim=16, cross_attention_input_dim=8,
    )  # fmt: skip
    vae = AutoencoderOobleck(
        encoder_hidden_size=6, downsampling_ratios=[1, 2], channel_multiples=[1, 2], decoder_channels=3,
        decoder_input_channels=4, audio_channels=2, sampling_rate=16,
    )  # fmt: skip
    projection = StableAudioProjectionModel(text_encoder_dim=8, conditioning_dim=8, min_value=0, max_value=32)
    scheduler = CosineDPMSolverMultistepScheduler(
        solver_order=2, prediction_type="v_prediction", sigma_data=1.0, sigma_schedule="exponential"
    )
    pipeline = StableAudioPipeline(
        vae=vae, text_encoder=None, projection_model=projection, tokenizer=None, transformer=transformer,
        scheduler=scheduler,
    )  # fmt: skip
    _perturbed(transformer, vae, projection)

    def encode_prompt(prompt: Any, device: Any, guided: bool, negative: Any = None, *ignored: Any) -> Any:
        found = embedding(prompt, _TOKENS, 8)
        return torch.cat([embedding(_negative(prompt, negative), _TOKENS, 8), found]) if negative else found

    pipeline.encode_prompt = encode_prompt
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def audio_ldm_2() -> Any:
    """AudioLDM 2: mel spectrograms of a U-Net, a vocoder; DDIM."""
    from diffusers import AudioLDM2Pipeline, AudioLDM2UNet2DConditionModel, AutoencoderKL, DDIMScheduler
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig, T5Config, T5EncoderModel

    torch.manual_seed(0)
    unet = AudioLDM2UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=8, sample_size=32, in_channels=4,
        out_channels=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=4,
        cross_attention_dim=((None, 8, None, 16),) * 2,  # of the generated encodings, then of the text
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=[8, 16], in_channels=1, out_channels=1, norm_num_groups=8, latent_channels=4,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
    )  # fmt: skip
    vocoder = SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=8, sampling_rate=16000, upsample_initial_channel=16, upsample_rates=[2, 2],
            upsample_kernel_sizes=[4, 4], resblock_kernel_sizes=[3, 7], resblock_dilation_sizes=[[1, 3, 5]] * 2,
            normalize_before=False,
        )
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False
    )
    # Its kind is asked for, its encodings are not.
    text_encoder = T5EncoderModel(T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    pipeline = AudioLDM2Pipeline(
        vae=vae, text_encoder=None, text_encoder_2=text_encoder, projection_model=None, language_model=None,
        tokenizer=None, tokenizer_2=None, feature_extractor=None, unet=unet, scheduler=scheduler, vocoder=vocoder,
    )  # fmt: skip
    _perturbed(unet, vae, vocoder)
    for parameter in vocoder.parameters():  # its initial weights give one constant tone
        parameter.mul_(20.0 if parameter.ndim > 1 else 1.0)

    def encode_prompt(
        prompt: Any, device: Any, count: int, guided: bool, transcription: Any = None, negative: Any = None,
        *ignored: Any, **more: Any,
    ) -> Any:  # fmt: skip
        texts = [*(_negative(prompt, negative) if guided else []), *prompt]
        first, second = embedding(texts, _TOKENS, 16), embedding(texts, _TOKENS, 8)
        return first, torch.ones(len(texts), _TOKENS, dtype=torch.long), second

    pipeline.encode_prompt = encode_prompt
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
