"""Classes whose task is another one: depth and normals of a picture, editing by inversion, shapes, tokens."""

from typing import Any

import tiny

from tiny_families.components import assemble, picture, recast
from tiny_families.row import Row


def _marigold(name: str) -> Any:
    base = tiny.tiny_stable_diffusion()
    return recast(name, base, unet=tiny._unet(in_channels=8), default_denoising_steps=4,
                  default_processing_resolution=0, prediction_type=None)  # fmt: skip


def _ledits() -> Any:
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", solver_order=2)
    return recast("LEditsPPPipelineStableDiffusion", tiny.tiny_stable_diffusion(), scheduler=scheduler)


def _shap_e() -> Any:
    from diffusers import HeunDiscreteScheduler, PriorTransformer
    from diffusers.pipelines.shap_e import ShapERenderer
    from transformers import CLIPTextModelWithProjection

    prior = PriorTransformer(
        num_attention_heads=2, attention_head_dim=8, embedding_dim=16, num_embeddings=32, embedding_proj_dim=16,
        time_embed_dim=32, num_layers=1, clip_embed_dim=32, additional_embeddings=0, time_embed_act_fn="gelu",
        norm_in_type="layer", encoder_hid_proj_type=None, added_emb_type=None,
    )  # fmt: skip
    renderer = ShapERenderer(
        param_shapes=((8, 93), (8, 8), (8, 8), (8, 8)), d_latent=16, d_hidden=8, n_output=12, background=(0.1,) * 3
    )
    scheduler = HeunDiscreteScheduler(
        beta_schedule="exp",
        num_train_timesteps=1024,
        prediction_type="sample",
        use_karras_sigmas=True,
        clip_sample=True,
    )
    return assemble(
        "ShapEPipeline", prior=prior, text_encoder=CLIPTextModelWithProjection(tiny._text_config()),
        tokenizer=tiny.tiny_tokenizer(), scheduler=scheduler, shap_e_renderer=renderer,
    )  # fmt: skip


ROWS = [
    Row("MarigoldDepthPipeline", "Marigold", lambda: _marigold("MarigoldDepthPipeline"),
        "prs-eth/marigold-depth-v1-1", main=True, prompts=None, per_sample=("image",),
        arguments={"image": picture(rows=2)}),
    Row("MarigoldNormalsPipeline", "Marigold", lambda: _marigold("MarigoldNormalsPipeline"),
        "prs-eth/marigold-normals-v1-1", prompts=None, per_sample=("image",), arguments={"image": picture(rows=2)}),
    Row("LEditsPPPipelineStableDiffusion", "LEDITS++", _ledits, "stable-diffusion-v1-5/stable-diffusion-v1-5",
        main=True, prompts=None, steps=None, arguments={"editing_prompt": ["a dog"]}),
    Row("ShapEPipeline", "Shap-E", _shap_e, "openai/shap-e", main=True, arguments={"frame_size": 8}),
]  # fmt: skip
