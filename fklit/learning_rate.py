"""The learning-rate schedule that every training recipe of fklit uses."""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(optimizer: Optimizer, warmup_steps: int, total_steps: int) -> LambdaLR:
    """Linear warm-up, then half a cosine down to zero at `total_steps`.

    As diffusers' `get_cosine_schedule_with_warmup`, except that the first step is not lost: that one starts its warm-up
    at a learning rate of zero, this one at `1 / warmup_steps` of the highest.

    Args:
        optimizer: Its learning rates are the highest ones.
        warmup_steps: Steps of the warm-up; 0 starts at the top.
        total_steps: Length of the run in optimizer steps.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
        return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))

    return LambdaLR(optimizer, factor)


def with_warmup_cosine(optimizer: Optimizer, warmup_steps: int, trainer: Any) -> dict[str, Any]:
    """What `configure_optimizers` returns: an optimizer with `warmup_cosine` over all steps of the run.

    Args:
        optimizer: Its learning rates are the highest ones.
        warmup_steps: Steps of the warm-up.
        trainer: Of Lightning.
    """
    schedule = warmup_cosine(optimizer, warmup_steps, int(trainer.estimated_stepping_batches))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
