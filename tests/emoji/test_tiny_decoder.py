"""The shipped preview decoder shows the reward what the pipeline's own decoder shows it."""

import logging
import warnings

import fklit
from fklit.emoji.prompts import compositional_prompts
from fklit.pipelines.tiny_decoder import TinyDecoder
from fklit.steering.preview_agreement import preview_agreement


def test_the_shipped_tiny_decoder_agrees_with_the_pipelines(caplog):
    pipeline = fklit.PipelineSource("fklit:emoji_scenes").load().pipeline
    decoder = TinyDecoder("fklit:emoji_tiny_autoencoder")
    prompts = [prompt.text for prompt in compositional_prompts(64)[-4:]]
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")  # a decoder of another family would be warned of
        found = preview_agreement(
            pipeline,
            prompts,
            preview_decoder=decoder,
            reward=fklit.rewards.ImageReward("fklit:emoji_reward"),
            num_particles=4,
            pipeline_kwargs={"num_inference_steps": 10, "guidance_scale": 1.0, "eta": 1.0},
        )
    assert not caplog.records
    assert float(found.mean_difference.max()) < 0.05
    assert float(found.reward_correlation.mean()) > 0.85
