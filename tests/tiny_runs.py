"""A sampling task without networks: `predict` of a prompt takes milliseconds, and its files are those of a real run."""

import torch
from lightning.pytorch import Trainer
from torch import nn

from fklit.callbacks import SampleWriter
from fklit.data import PromptDataModule
from fklit.feynman_kac.budget import Budget
from fklit.rewards import Function
from fklit.sampling.settings import SamplingSettings
from fklit.sampling.task import SamplingTask
from fklit.steering.result import SteeringResult

PROMPTS = ["a green heart", "two cats", "a red apple", "a dog"]


class NoSource(nn.Module):
    """Nothing is loaded."""

    def settings(self):
        return {"class": "NoSource"}

    def load(self):
        return self

    def enable_offload(self, device):
        pass


def redness(images):
    return images[:, 0].mean((1, 2))


class TinyTask(SamplingTask):
    """Samples are noise by seed and index of the prompt."""

    def __init__(self, *, seed=0, fails=None):
        super().__init__(
            NoSource(), SamplingSettings(reward=Function(redness), reward_scale=1.0, seed=seed), reported=()
        )
        self.fails = fails

    def figures(self, result):
        return {}

    def sample(self, prompts, indices, metadata=None):
        if self.fails is not None:
            raise self.fails
        seed = self.sampling.seed
        samples = torch.stack(
            [torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1000 * seed + index)) for index in indices]
        )
        rewards = samples[:, :, 0].mean((2, 3)).double()
        groups = len(prompts)
        return SteeringResult(
            samples=samples,
            log_weights=torch.log_softmax(rewards, 1),
            steps=(1,),
            log_z=torch.zeros(groups).double(),
            ess=torch.full((2, groups), 2.0).double(),
            ancestors=torch.arange(2).expand(1, groups, 2),
            resampled=torch.zeros(1, groups, dtype=torch.bool),
            degenerate=torch.zeros(groups, dtype=torch.bool),
            dropped=torch.zeros(groups, dtype=torch.long),
            budget=Budget(denoiser_calls=groups),
            prompts=prompts,
            prompt_indices=indices,
            num_steps=3,
            scored_steps=(1,),
            rewards=rewards,
            reward_path=rewards[None],
            previews=(samples[None] * 255).to(torch.uint8),
            settings={"sampler": "none", "seed": seed},
        )


def predict(out, *, prompts=PROMPTS, overwrite=False, callbacks=(), **task):
    """Run `predict` into a folder."""
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out.parent,
        callbacks=[SampleWriter(str(out), overwrite=overwrite), *callbacks],
    )
    task = TinyTask(**task)
    trainer.predict(task, PromptDataModule(prompts=prompts), return_predictions=False)
    return task


def contents(out):
    """Bytes of every file of a run by relative name."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
