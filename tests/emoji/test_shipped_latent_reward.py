"""The shipped latent reward foresees the reward without decoding anything on the way."""

import torch

import fklit
from fklit.emoji.prompts import compositional_prompts
from fklit.rewards import ImageReward, LatentImageReward


def test_the_shipped_latent_reward_foresees_the_reward():
    pipeline = fklit.PipelineSource("fklit:emoji_scenes").load().pipeline
    prompts = [prompt.text for prompt in compositional_prompts(64)[-4:]]
    result = fklit.steer(
        pipeline,
        prompts,
        reward=ImageReward("fklit:emoji_reward"),
        reward_scale=0.0,  # the model's own samples, scored on the way
        latent_reward=LatentImageReward("fklit:emoji_latent_reward"),
        reward_schedule=fklit.Schedule(indices=(0.8,)),
        num_particles=8,
        previews=False,
        pipeline_kwargs={"num_inference_steps": 10, "guidance_scale": 1.0, "eta": 1.0},
    )
    assert result.budget.latent_reward_calls == 32 and result.budget.reward_calls == 32
    foreseen = result.reward_path[0]
    assert bool((foreseen <= 0).all())

    def ranks(values):
        return values.argsort(dim=1).argsort(dim=1).double()

    pairs = torch.stack([ranks(foreseen).flatten(), ranks(result.rewards).flatten()])
    assert float(torch.corrcoef(pairs)[0, 1]) > 0.25
