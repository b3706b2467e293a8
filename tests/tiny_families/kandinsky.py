"""Kandinsky 2.1 and 2.2 (decoders behind a prior) and 3."""

from typing import Any

import tiny_pipelines
import torch

from tiny_families.components import assemble, component, picture, recast
from tiny_families.encodings import embeds, encode_by, encoding, mask
from tiny_families.row import Row

_SIZE = {"height": 16, "width": 16, "guidance_scale": 3.0}
_EMBEDS = {"image_embeds": encoding(("a", "b"), 16), "negative_image_embeds": encoding(("", ""), 16)}
_NAMES = ("image_embeds", "negative_image_embeds")


def _decoder(name: str, **parts: Any) -> Any:
    return recast(name, tiny_pipelines.tiny_kandinsky_decoder(), **parts)


def _prior(name: str) -> dict[str, Any]:
    """The parts of a combined class."""
    import tiny
    from diffusers import PriorTransformer, UnCLIPScheduler
    from transformers import CLIPImageProcessor, CLIPTextModelWithProjection

    prior = PriorTransformer(
        num_attention_heads=2, attention_head_dim=8, embedding_dim=16, num_layers=1, num_embeddings=tiny._MAX_TOKENS
    )
    prior.clip_std = torch.nn.Parameter(torch.ones(prior.clip_std.shape))
    return {
        "prior_prior": prior, "prior_image_encoder": tiny_pipelines._image_encoder(),
        "prior_text_encoder": CLIPTextModelWithProjection(tiny._text_config()),
        "prior_tokenizer": tiny.tiny_tokenizer(),
        "prior_scheduler": UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample=True, clip_sample_range=10.0
        ),
        "prior_image_processor": CLIPImageProcessor(size=16, crop_size=16),
    }  # fmt: skip


def _combined() -> Any:
    return _decoder("KandinskyV22CombinedPipeline", **_prior("prior"))


def _third(name: str) -> Any:
    from diffusers import DDPMScheduler

    unet = component(
        "Kandinsky3UNet", in_channels=4, time_embedding_dim=4, groups=2, attention_head_dim=4, layers_per_block=3,
        block_out_channels=(8, 16), cross_attention_dim=4, encoder_hid_dim=8,
    )  # fmt: skip
    movq = tiny_pipelines.tiny_kandinsky_decoder().movq
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    pipeline = assemble(name, unet=unet, movq=movq, scheduler=scheduler)
    return encode_by(pipeline, embeds(8), embeds(8, negative=True), mask(), mask(negative=True))


ROWS = [
    Row("KandinskyV22CombinedPipeline", "Kandinsky 2.2", _combined, "kandinsky-community/kandinsky-2-2-decoder",
        main=True, output="np", arguments={**_SIZE, "prior_num_inference_steps": 2}),
    Row("KandinskyV22Pipeline", "Kandinsky 2.2", tiny_pipelines.tiny_kandinsky_decoder,
        "kandinsky-community/kandinsky-2-2-decoder", prompts=None, per_sample=_NAMES, output="np",
        arguments={**_SIZE, **_EMBEDS}),
    Row("KandinskyV22Img2ImgPipeline", "Kandinsky 2.2", lambda: _decoder("KandinskyV22Img2ImgPipeline"),
        "kandinsky-community/kandinsky-2-2-decoder", prompts=None, per_sample=(*_NAMES, "image"),
        output="np", arguments={**_SIZE, **_EMBEDS, "image": picture() * 2 - 1, "strength": 0.8}),
    Row("Kandinsky3Pipeline", "Kandinsky 3", lambda: _third("Kandinsky3Pipeline"),
        "kandinsky-community/kandinsky-3", main=True, output="np", arguments=_SIZE),
    Row("Kandinsky3Img2ImgPipeline", "Kandinsky 3", lambda: _third("Kandinsky3Img2ImgPipeline"),
        "kandinsky-community/kandinsky-3",
        per_sample=("image",), output="np", arguments={"guidance_scale": 3.0, "image": picture(), "strength": 0.8}),
]  # fmt: skip
