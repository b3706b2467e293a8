"""An own decode equals the pipeline's, bit for bit."""

import pytest
import torch
from tiny import tiny_sdxl, tiny_stable_diffusion

from fklit.pipelines.decode import DecodeTap, UndecodableError, decode_latents


@pytest.mark.parametrize("build", [tiny_stable_diffusion, tiny_sdxl])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_equals_the_pipelines_own(build, dtype):
    pipeline = build().to(dtype)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)

    def images(output_type):
        return pipeline(
            prompt=["a", "b"], latents=latents, num_inference_steps=1, output_type=output_type,
            generator=[torch.Generator().manual_seed(i) for i in range(2)],
        ).images  # fmt: skip

    expected = images("pt").float()
    ours = decode_latents(pipeline, images("latent"))
    assert ours.dtype == torch.float32
    # The pipeline brings [-1, 1] to [0, 1] in its own precision, fklit in float32.
    tolerance = {torch.float32: 0, torch.float16: 1e-3, torch.bfloat16: 1e-2}[dtype]
    assert (ours - expected).abs().max() <= tolerance
    assert next(pipeline.vae.parameters()).dtype == dtype, "the autoencoder must be left in its precision"


def test_unknown_latents_are_refused():
    with pytest.raises(UndecodableError, match="pass decode="):
        decode_latents(tiny_stable_diffusion(), torch.zeros(1, 4, 2, 8, 8))


def test_tap_counts_splits_and_restores():
    pipeline = tiny_stable_diffusion()
    latents = torch.randn(5, 4, 8, 8)
    whole = decode_latents(pipeline, latents)
    with DecodeTap(pipeline, max_batch=2).installed() as tap:
        split = decode_latents(pipeline, latents)
    torch.testing.assert_close(split, whole, rtol=1e-5, atol=1e-6)
    assert tap.decodes == 5
    assert tap.last.shape == (5, 3, 16, 16)
    assert "decode" not in pipeline.vae.__dict__
