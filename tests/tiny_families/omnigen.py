"""OmniGen: text and pictures in one language model."""

from typing import Any

import tiny

from tiny_families.components import assemble, component, euler
from tiny_families.row import Row


def _omnigen() -> Any:
    network = component(
        "OmniGenTransformer2DModel", in_channels=4, hidden_size=16, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=32, num_layers=1, pad_token_id=0, vocab_size=200, time_step_dim=16,
        rope_scaling={"long_factor": list(range(1, 5)), "short_factor": list(range(1, 5))},
    )  # fmt: skip
    scheduler = euler(invert_sigmas=True, num_train_timesteps=1)
    vae = component(  # eightfold, as its processor counts on
        "AutoencoderKL", block_out_channels=(4, 4, 4, 8), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    return assemble(
        "OmniGenPipeline", transformer=network, scheduler=scheduler, vae=vae,
        tokenizer=tiny.tiny_tokenizer(),
    )  # fmt: skip


ROWS = [
    Row("OmniGenPipeline", "OmniGen", _omnigen, "Shitao/OmniGen-v1-diffusers", main=True, loose=True,
        arguments={"height": 32, "width": 32, "guidance_scale": 3.0}),
]  # fmt: skip
