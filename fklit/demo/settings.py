"""What the demo is run on: its settings and its prompts."""

from dataclasses import dataclass, field

from fklit.emoji.prompts import ScenePrompt, test_prompts
from fklit.feynman_kac.schedule import Schedule


@dataclass(frozen=True)
class DemoSettings:
    """What both runs of the demo share.

    Attributes:
        num_particles: K, samples of each prompt.
        num_steps: Denoising steps.
        guidance_scale: Weight of classifier-free guidance; 1 samples the model's own p(x | prompt), at half the cost.
        eta: Noise of DDIM, above 0: clones of a particle separate by it. Base and best-of-n get the same.
        reward_scale: Exponent of the target, chosen on other prompts (benchmarks/steering.py --tune); None takes the
            reward's own suggestion.
        schedule: Scored steps of the steered run.
        ess_threshold: Fraction of K below which a prompt resamples.
        seed: Seed of all samples.
        prompts_per_call: Prompts in one call of the pipeline.
    """

    num_particles: int = 4
    num_steps: int = 30
    guidance_scale: float = 1.0
    eta: float = 1.0
    reward_scale: float | None = 16.0
    schedule: Schedule = field(default_factory=lambda: Schedule(start=0.2, stop=0.8, every=0.1))
    ess_threshold: float = 0.5
    seed: int = 0
    prompts_per_call: int = 12


def demo_prompts(number: int) -> list[ScenePrompt]:
    """Test prompts of all kinds; the second half are pairs of objects that training never showed together.

    Args:
        number: How many, at least 1.
    """
    unseen = number // 2
    pairs = test_prompts(unseen, held_out=True, tags=("position", "two_object", "color_attr"))
    return [*test_prompts(number - unseen, held_out=False), *pairs]
