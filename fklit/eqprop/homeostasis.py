"""The Jacobian homeostatic loss: a local pull towards a symmetric Jacobian, added to the loss of the task.

``L = ||J||_F^2 - tr(J^2) = 1/2 ||J - J^T||_F^2`` for ``J = H' - 1``, the derivative of the recurrent input with respect
to the activities (Laborieux & Zenke 2024, arXiv 2309.02214). The free state is a constant: only the direct dependence
on the weights is differentiated.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from fklit.eqprop.connections import DenseLink
from fklit.eqprop.fields import Linearized
from fklit.eqprop.state import State, row_dots
from fklit.feynman_kac.randomness import group_generators

if TYPE_CHECKING:
    from fklit.eqprop.networks import Equilibrium, EquilibriumNetwork

Form = Literal["two_term", "squared", "closed"]


def draw_probes(
    network: "EquilibriumNetwork",
    sample_ids: Sequence[int],
    *,
    probes: int = 1,
    seed: int = 0,
    step: int = 0,
    device: torch.device | str = "cpu",
) -> State:
    """Standard normal directions, one function of (seed, sample id, step) each, whatever the batch around it.

    Args:
        network: Whose populations.
        sample_ids: One number a sample.
        probes: Directions for each sample.
        seed: Any integer.
        step: So that a sample gets new directions each time.
        device: Where to draw; kinds of devices draw different numbers.

    Returns:
        Float32, one tensor ``(probes * samples, *shape)`` a population, all samples' first probe first.
    """
    shapes = [tuple(population.shape) for population in network.populations]
    generators = group_generators(seed, sample_ids, stream=f"homeostasis:{step}", device=device)
    size = (probes, network.num_neurons)
    drawn = [torch.randn(size, generator=generator, device=device, dtype=torch.float32) for generator in generators]
    rows = torch.stack(drawn, 1).flatten(0, 1)
    parts = torch.split(rows, [torch.Size(shape).numel() for shape in shapes], 1)
    return tuple(part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True))


def _filled(products: dict[int, Tensor], like: State) -> State:
    return tuple(products.get(i, torch.zeros_like(part)) for i, part in enumerate(like))


def two_term(linear: Linearized, probe: State, *, sensitivity: bool = True, reconstruction: bool = True) -> Tensor:
    """``|J v|^2 - v^T J J v`` for each probe v, ``(rows,)``: the authors' estimator.

    Args:
        linear: A differentiable derivative of the recurrent input.
        probe: v, a standard normal direction for each row.
        sensitivity: Whether the first term is there.
        reconstruction: Whether the second term is there.
    """

    def jacobian(direction: State) -> State:
        products = _filled(linear.forwards(direction), probe)
        return tuple(product - part for product, part in zip(products, direction, strict=True))

    once = jacobian(probe)
    total = torch.zeros_like(row_dots(probe, probe))
    if sensitivity:
        total = total + row_dots(once, once)
    if reconstruction:
        total = total - row_dots(probe, jacobian(once))
    return total


def squared(linear: Linearized, probe: State) -> Tensor:
    """``1/2 |(J - J^T) v|^2`` for each probe v, ``(rows,)``: the same mean, never negative, no noise at symmetry."""
    difference = _filled(linear.asymmetry(probe), probe)
    return 0.5 * row_dots(difference, difference)


def closed_form(network: "EquilibriumNetwork") -> Tensor:
    """``1/2 ||J - J^T||_F^2`` of a network with dense links only, without sampling; it does not depend on the state.

    Raises:
        ValueError: If a link between populations is not dense.
    """
    blocks: dict[tuple[int, int], Tensor] = {}  # (to, from) -> matrix
    for name, (pre, post) in network.ends.items():
        if pre < 0:
            continue
        link = network.link(name)
        if not isinstance(link, DenseLink):
            raise ValueError(f"Link {name} is not dense; use form='squared' or 'two_term' for this network.")
        blocks[post, pre] = link.forward_weight
        if link.reciprocal:
            blocks[pre, post] = link.aligned_backward_weight().T
    total = next(network.parameters()).new_zeros(())
    for (to, source), block in blocks.items():
        opposite = blocks.get((source, to))
        if opposite is None:
            total = total + block.square().sum()  # half of twice: the block and its transposed shadow
        else:
            total = total + 0.5 * (block - opposite.T).square().sum()
    return total


class Homeostasis:
    """The homeostatic loss with its weight.

    Args:
        form: ``"two_term"`` is the authors' estimator, ``"squared"`` one of less variance, ``"closed"`` exact for dense
            networks.
        weight: Factor on the loss (lambda in the paper: 0.1 to 15).
        warmup_steps: Steps over which the weight grows linearly from 0; 0 for a constant weight.
        probes: Random directions for each sample (the authors use 5).
        normalize: Whether to divide by the number of neurons, as the published code does.
        sensitivity: For ``"two_term"``: keep the first term, ``|J v|^2``.
        reconstruction: For ``"two_term"``: keep the second term, ``v^T J J v``.
        seed: Of the probes.

    Raises:
        ValueError: If an argument is out of range, or terms are switched off where there are none.
    """

    def __init__(
        self,
        form: Form = "two_term",
        *,
        weight: float = 1.0,
        warmup_steps: int = 0,
        probes: int = 5,
        normalize: bool = True,
        sensitivity: bool = True,
        reconstruction: bool = True,
        seed: int = 0,
    ) -> None:
        if form not in ("two_term", "squared", "closed"):
            raise ValueError(f"form={form!r} was given; give 'two_term', 'squared' or 'closed'.")
        if weight < 0 or warmup_steps < 0 or probes < 1:
            raise ValueError(
                f"weight={weight}, warmup_steps={warmup_steps}, probes={probes} were given; they are at least 0, 0, 1."
            )
        if not (sensitivity or reconstruction):
            raise ValueError("Both terms are switched off; give weight=0 for no homeostatic loss.")
        if form != "two_term" and not (sensitivity and reconstruction):
            raise ValueError(f"form={form!r} has no separate terms; use form='two_term' to switch one off.")
        self.form, self.weight, self.warmup_steps, self.probes = form, weight, warmup_steps, probes
        self.normalize, self.sensitivity, self.reconstruction, self.seed = normalize, sensitivity, reconstruction, seed

    def weight_at(self, step: int) -> float:
        """The weight at a training step, counted from 0."""
        if self.warmup_steps == 0:
            return self.weight
        return self.weight * min(1.0, step / self.warmup_steps)

    def __call__(
        self, network: "EquilibriumNetwork", equilibrium: "Equilibrium", *, sample_ids: Sequence[int], step: int = 0
    ) -> Tensor:
        """The loss without its weight, a scalar; mean over samples and probes, to which diverged samples add 0.

        Args:
            network: The network; its weights get the gradient.
            equilibrium: Free equilibrium of a batch.
            sample_ids: One number a sample, for the probes.
            step: The training step, for the probes.

        Raises:
            ValueError: If there is not one id a sample.
        """
        samples = len(equilibrium.x)
        if len(sample_ids) != samples:
            raise ValueError(f"{len(sample_ids)} sample_ids were given for {samples} samples; give one for each.")
        scale = 1 / network.num_neurons if self.normalize else 1.0
        with torch.autocast(equilibrium.x.device.type, enabled=False):
            if self.form == "closed":
                return closed_form(network) * scale
            device, dtype = equilibrium.x.device, equilibrium.x.dtype
            drawn = draw_probes(network, sample_ids, probes=self.probes, seed=self.seed, step=step, device=device)
            probe = tuple(part.to(dtype) for part in drawn)
            linear = Linearized(network, equilibrium.state, differentiable=True)
            if self.form == "squared":
                values = squared(linear, probe)
            else:
                values = two_term(linear, probe, sensitivity=self.sensitivity, reconstruction=self.reconstruction)
            used = (~equilibrium.report.diverged).repeat(self.probes)
            return torch.where(used, values, 0.0).mean() * scale
