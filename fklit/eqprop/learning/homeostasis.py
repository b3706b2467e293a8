"""The Jacobian homeostatic loss: a local penalty on the asymmetry of the Jacobian, added to the loss of the task.

`L = ||J||_F^2 - tr(J^2) = 1/2 ||J - J^T||_F^2` for `J = H' - 1`, the derivative of the recurrent input with respect
to the activities (Laborieux & Zenke 2024, arXiv 2309.02214). The free state is a constant: only the direct dependence
on the weights is differentiated.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from fklit.eqprop.network.linearized import LinearizedRecurrence
from fklit.eqprop.network.links import DenseLink
from fklit.eqprop.network.recurrent import RecurrentNetwork
from fklit.eqprop.network.residual import ResidualLink
from fklit.eqprop.network.state import State, fill_layers, row_dots
from fklit.eqprop.relaxation.precision import full_precision
from fklit.eqprop.relaxation.result import Equilibrium
from fklit.feynman_kac.randomness import group_generators

Form = Literal["two_term", "squared", "closed"]


def draw_probes(
    network: RecurrentNetwork,
    sample_ids: Sequence[int],
    *,
    probes: int = 1,
    seed: int = 0,
    step: int = 0,
    device: torch.device | str = "cpu",
) -> State:
    """Standard normal directions, one function of (seed, sample id, step) each, whatever the batch around it.

    Args:
        network: Whose layers.
        sample_ids: One number for each sample.
        probes: Directions for each sample.
        seed: Any integer.
        step: So that a sample gets new directions each time.
        device: Where to draw; kinds of devices draw different numbers.

    Returns:
        Float32, one tensor `(probes * samples, *shape)` for each layer, all samples' first probe first.
    """
    shapes = [tuple(layer.shape) for layer in network.layers]
    generators = group_generators(seed, sample_ids, stream=f"homeostasis:{step}", device=device)
    size = (probes, network.num_neurons)
    drawn = [torch.randn(size, generator=generator, device=device, dtype=torch.float32) for generator in generators]
    rows = torch.stack(drawn, 1).flatten(0, 1)
    parts = torch.split(rows, [torch.Size(shape).numel() for shape in shapes], 1)
    return tuple(part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True))


def two_term(
    linear: LinearizedRecurrence, probe: State, *, sensitivity: bool = True, reconstruction: bool = True
) -> Tensor:
    """`|J v|^2 - v^T J J v` for each probe v, `(rows,)`: the authors' estimator.

    Args:
        linear: A differentiable derivative of the recurrent input.
        probe: v, a standard normal direction for each row.
        sensitivity: Whether the first term is there.
        reconstruction: Whether the second term is there.
    """

    def jacobian(direction: State) -> State:
        products = fill_layers(linear.jvp(direction), probe)
        return tuple(product - part for product, part in zip(products, direction, strict=True))

    once = jacobian(probe)
    total = torch.zeros_like(row_dots(probe, probe))
    if sensitivity:
        total = total + row_dots(once, once)
    if reconstruction:
        total = total - row_dots(probe, jacobian(once))
    return total


def squared(linear: LinearizedRecurrence, probe: State) -> Tensor:
    """`1/2 |(J - J^T) v|^2` for each probe v, `(rows,)`: the same mean, never negative, no noise at symmetry."""
    difference = fill_layers(linear.asymmetry(probe), probe)
    return 0.5 * row_dots(difference, difference)


def closed_form(network: RecurrentNetwork) -> Tensor:
    """`1/2 ||J - J^T||_F^2` of a network with dense links only, without sampling; it does not depend on the state.

    Raises:
        ValueError: If a link between layers is not dense.
    """
    blocks: dict[tuple[int, int], Tensor] = {}  # (to, from) -> matrix
    for name, (pre, post) in network.ends.items():
        if pre < 0:
            continue
        link = network.link(name)
        if isinstance(link, ResidualLink) and link.reciprocal:
            continue  # symmetric
        if not isinstance(link, DenseLink):
            raise ValueError(
                f"expected dense links for form='closed', got {name}, which is not dense; use form='squared' or "
                "'two_term'."
            )
        blocks[post, pre] = link.forward_weight
        if link.reciprocal:
            blocks[pre, post] = link.aligned_backward_weight().T
    total = next(network.parameters()).new_zeros(())
    for (to, source), block in blocks.items():
        opposite = blocks.get((source, to))
        if opposite is None:
            total = total + block.square().sum()  # half of twice: the block and its transpose
        else:
            total = total + 0.5 * (block - opposite.T).square().sum()
    return total


class Homeostasis:
    """The homeostatic loss with its weight.

    Args:
        form: `"two_term"` is the authors' estimator, `"squared"` one of less variance, `"closed"` exact for dense
            networks.
        weight: Factor on the loss (lambda in the paper: 0.1 to 15).
        warmup_steps: Steps over which the weight grows linearly from 0; 0 for a constant weight.
        probes: Random directions for each sample. The authors use 5; 1 is at least as accurate at equal seconds
            (`docs/equilibrium-propagation.md`).
        normalize: Whether to divide by the number of neurons, as the published code does.
        sensitivity: For `"two_term"`: keep the first term, `|J v|^2`.
        reconstruction: For `"two_term"`: keep the second term, `v^T J J v`.
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
        probes: int = 1,
        normalize: bool = True,
        sensitivity: bool = True,
        reconstruction: bool = True,
        seed: int = 0,
    ) -> None:
        if form not in ("two_term", "squared", "closed"):
            raise ValueError(f"expected form 'two_term', 'squared' or 'closed', got form={form!r}.")
        if weight < 0 or warmup_steps < 0 or probes < 1:
            raise ValueError(
                f"expected weight and warmup_steps of at least 0 and probes of at least 1, got weight={weight}, "
                f"warmup_steps={warmup_steps}, probes={probes}."
            )
        if not (sensitivity or reconstruction):
            raise ValueError(
                "expected at least one of sensitivity and reconstruction, got neither; give weight=0 instead."
            )
        if form != "two_term" and not (sensitivity and reconstruction):
            raise ValueError(
                f"expected form='two_term' to switch a term off, got form={form!r}, which has no separate terms."
            )
        self.form, self.weight, self.warmup_steps, self.probes = form, weight, warmup_steps, probes
        self.normalize, self.sensitivity, self.reconstruction, self.seed = normalize, sensitivity, reconstruction, seed

    def weight_at(self, step: int) -> float:
        """The weight at a training step, counted from 0."""
        if self.warmup_steps == 0:
            return self.weight
        return self.weight * min(1.0, step / self.warmup_steps)

    def __call__(
        self, network: RecurrentNetwork, equilibrium: Equilibrium, *, sample_ids: Sequence[int], step: int = 0
    ) -> Tensor:
        """The loss without its weight, a scalar; mean over samples and probes, to which diverged samples add 0.

        Args:
            network: The network; its weights get the gradient.
            equilibrium: Free equilibrium of a batch.
            sample_ids: One number for each sample, for the probes.
            step: The training step, for the probes.

        Raises:
            ValueError: If there is not one id for each sample.
        """
        samples = len(equilibrium.x)
        if len(sample_ids) != samples:
            raise ValueError(f"expected one of sample_ids for each of {samples} samples, got {len(sample_ids)}.")
        scale = 1 / network.num_neurons if self.normalize else 1.0
        with torch.autocast(equilibrium.x.device.type, enabled=False), full_precision():
            if self.form == "closed":
                return closed_form(network) * scale
            device, dtype = equilibrium.x.device, equilibrium.x.dtype
            drawn = draw_probes(network, sample_ids, probes=self.probes, seed=self.seed, step=step, device=device)
            probe = tuple(part.to(dtype) for part in drawn)
            linear = LinearizedRecurrence(network, equilibrium.state, differentiable=True)
            if self.form == "squared":
                values = squared(linear, probe)
            else:
                values = two_term(linear, probe, sensitivity=self.sensitivity, reconstruction=self.reconstruction)
            used = (~equilibrium.result.diverged).repeat(self.probes)
            return torch.where(used, values, 0.0).mean() * scale
