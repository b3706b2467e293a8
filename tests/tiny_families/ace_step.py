"""ACE-Step: songs from a description and lyrics."""

from typing import Any

import torch

from tiny_families.components import assemble, component, euler
from tiny_families.encodings import TOKENS, encoding
from tiny_families.row import Row


def _ace_step() -> Any:
    from diffusers.pipelines.ace_step.modeling_ace_step import AceStepConditionEncoder

    shape = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
    }
    transformer = component(
        "AceStepTransformer1DModel", **shape, num_hidden_layers=2, in_channels=24, audio_acoustic_hidden_dim=8,
        patch_size=2, sliding_window=16,
    )  # fmt: skip
    encoder = AceStepConditionEncoder(
        **shape, text_hidden_dim=16, timbre_hidden_dim=8, num_lyric_encoder_hidden_layers=1,
        num_timbre_encoder_hidden_layers=1, sliding_window=16,
    )  # fmt: skip
    vae = component(
        "AutoencoderOobleck", encoder_hidden_size=6, downsampling_ratios=[1, 2], channel_multiples=[1, 2],
        decoder_channels=3, decoder_input_channels=8, audio_channels=2, sampling_rate=50,
    )  # fmt: skip
    pipeline = assemble(
        "AceStepPipeline", transformer=transformer, condition_encoder=encoder, vae=vae, scheduler=euler()
    )

    def encode_prompt(prompt: Any, lyrics: Any, *ignored: Any, **more: Any) -> Any:
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        lines = [lyrics] * len(texts) if isinstance(lyrics, str) else list(lyrics)
        ones = torch.ones(len(texts), TOKENS, dtype=torch.bool)
        return encoding(texts, TOKENS, 16), ones, encoding(lines, TOKENS, 16), ones

    pipeline.encode_prompt = encode_prompt
    return pipeline


ROWS = [
    Row("AceStepPipeline", "ACE-Step", _ace_step, "ACE-Step/Ace-Step1.5", "audio", main=True, loose=True,
        arguments={"audio_duration": 2.0, "guidance_scale": 3.0, "lyrics": "la la"}),
]  # fmt: skip
