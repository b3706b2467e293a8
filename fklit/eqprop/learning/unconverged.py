"""What is done with samples that have not converged, in the free phase and in the response to the nudge."""

import torch
from jaxtyping import Bool
from torch import Tensor

from fklit.eqprop.learning.responses import Estimator, Response
from fklit.eqprop.relaxation.result import Equilibrium, UnconvergedPolicy
from fklit.eqprop.relaxation.settings import Relaxation


def check_policy(unconverged: UnconvergedPolicy | None, free: Relaxation, estimator: Estimator) -> None:
    """Refuse unknown policies, and those that would leave no sample.

    Args:
        unconverged: The policy; None for the estimator's own.
        free: Of the free phase.
        estimator: Of the response.

    Raises:
        ValueError: If there is no such policy; or if a relaxation that it looks at has a tolerance of 0, with which no
            sample ever counts as converged.
    """
    if unconverged not in (None, "keep", "drop", "raise"):
        raise ValueError(f"expected unconverged 'keep', 'drop', 'raise' or None, got unconverged={unconverged!r}.")
    policy = estimator.policy(unconverged)
    if policy == "keep":
        return
    looked_at = {"free": free} | ({"estimator.relaxation": estimator.relaxation} if estimator.linearizes else {})
    for name, relaxation in looked_at.items():
        if relaxation.tolerance == 0:
            whose = "" if unconverged else f", which is what None means for {type(estimator).__name__}"
            raise ValueError(
                f"expected {name}.tolerance above 0 for unconverged={policy!r}{whose}, got 0, with which no sample "
                "counts as converged; give a tolerance, or unconverged='keep' as in the published procedure."
            )


def dropped_samples(
    equilibrium: Equilibrium, response: Response, estimator: Estimator, policy: UnconvergedPolicy
) -> Bool[Tensor, " samples"]:
    """Samples that get no gradient of the dynamics.

    Args:
        equilibrium: The free phase.
        response: The response to the nudge.
        estimator: What measured it.
        policy: `"keep"`, `"drop"` or `"raise"`.

    Returns:
        Those that diverged in any phase; with `"drop"` also those whose free phase, or whose linear iteration for an
        estimator that linearizes, has not converged.

    Raises:
        RuntimeError: With `"raise"`, if a linear iteration has not converged.
    """
    dropped = equilibrium.result.diverged | response.diverged
    if policy == "keep":
        return dropped
    # Nudged phases of a finite nudge are cut off on purpose: what is left of the way cancels between them.
    left = ~response.converged if estimator.linearizes else torch.zeros_like(dropped)
    if policy == "raise" and bool(left.any()):
        relaxation = estimator.relaxation
        raise RuntimeError(
            f"expected the response of all {len(left)} samples to converge in {relaxation.max_iterations} iterations, "
            f"got {int(left.sum())} that did not; raise estimator.relaxation.max_iterations or its tolerance, or "
            "choose unconverged='keep' or 'drop'."
        )
    return dropped | left | ~equilibrium.result.converged
