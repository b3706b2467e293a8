"""Case B, whose 256 states are enumerated, as a masked text model with a table for a denoiser."""

import torch

from fklit.feynman_kac import Difference, RewardPath
from fklit.text.ancestral import AncestralModel
from fklit.text.denoising import Denoising
from fklit.text.noise_schedule import LogLinearSchedule
from fklit.text.proposals import TiltedProposal


def table(world):
    """The world's conditional marginals as a denoiser, with a logit of the mask that must not matter."""

    def denoise(tokens, at):
        logits = torch.cat([world.marginal.clamp(min=1e-300).log(), torch.full((256, 4, 1), 5.0)], dim=2)
        return logits[world.index(tokens)][at]

    return denoise


def ancestral(world, proposal=None):
    start = torch.full((1, 4), world.mask)
    denoising = Denoising(table(world), mask=world.mask)
    return AncestralModel(denoising, start, num_steps=4, schedule=LogLinearSchedule(), proposal=proposal)


class Rewarded:
    """Adds the world's reward, scored at the conditional mean of the sum, to the sampler's own log potential."""

    num_steps = 4

    def __init__(self, model, world):
        self.model, self.world = model, world

    def initial(self, num_groups, num_particles, generator):
        path = RewardPath(Difference(), num_groups, num_particles)
        return {"text": self.model.initial(num_groups, num_particles, generator), "path": path}

    def step(self, state, t, log_weights, generator):
        text, ratio = self.model.step(state["text"], t, log_weights, generator)
        reward = self.world.predicted_reward[self.world.index(text.tokens)]
        weigh = state["path"].terminal if t == 3 else state["path"].update
        return {"text": text, "path": state["path"]}, ratio + weigh(reward, self.world.scale)


def lean(world):
    """The reward at the mean of the sum when one position takes each value and the others stay at their means."""

    def tilt(tokens, log_probs):
        probabilities = log_probs[..., :3].exp()
        means = (probabilities * torch.arange(3)).sum(-1)
        total = means.sum(-1, keepdim=True) - means
        return torch.nn.functional.pad(-world.scale * (total[..., None] + torch.arange(3) - 6).abs(), (0, 1))

    return TiltedProposal(tilt)
