"""Anderson acceleration of a relaxation: each sample extrapolates from its own last iterations, with a safeguard."""

import torch
from torch import Tensor

from fklit.eqprop.network.state import State, halves


def _rows(state: State, parts: int, *, imaginary: bool = False) -> Tensor:
    """A state as one row of real numbers for each sample, `(samples, numbers)`; with zeros for real parts if asked."""
    pieces = []
    for part in state:
        if part.is_complex():
            pairs = torch.view_as_real(part)
            pieces.append((pairs * pairs.new_tensor([0.0, 1.0]) if imaginary else pairs).flatten(1))
        elif parts == 2:
            real, other = halves(part)
            pieces += [(torch.zeros_like(real) if imaginary else real).flatten(1), other.flatten(1)]
        else:
            pieces.append(part.flatten(1))
    return torch.cat(pieces, 1)


def _state(rows: Tensor, like: State, parts: int) -> State:
    """The inverse of `_rows`, in the shapes, number format and memory format of a state."""
    numbers = [part[0].numel() * (2 if part.is_complex() else 1) for part in like]
    pieces = iter(torch.split(rows, [count for count in numbers for _ in range(parts)], 1))
    made = []
    for part in like:
        if part.is_complex():
            new = torch.view_as_complex(next(pieces).reshape(*part.shape, 2))
        else:
            new = torch.cat([next(pieces) for _ in range(parts)]).view(part.shape)
        last = part.dim() == 4 and not part.is_contiguous()
        made.append(new.contiguous(memory_format=torch.channels_last) if last else new)
    return tuple(made)


NEAR = 0.03
"""Largest residual of a neuron at which a sample is extrapolated; activities are of order one."""


class Anderson:
    """Memory of the last iterations of each sample, and the points that they suggest.

    With `g` the map that one iteration applies and `f(s) = g(s) - s` its residual, the suggested point is the
    combination of the last images, of weights that add up to 1, whose combined residual is the smallest (Anderson 1965;
    type II of Walker & Ni 2011). Every other iteration is a plain one (Pratapa et al. 2016).

    **Safeguards.** A sample is extrapolated only where its residual is small and the last plain iteration has lowered
    it: extrapolation finds fixed points that repel the plain iteration, too, and those are not wanted. If the residual
    at an extrapolated point is not smaller than at every point before, the point is refused, the memory of that sample
    is forgotten, and it takes the plain step from the point before. (Only smaller than at the last point is not enough:
    plain steps away from a repelling point and extrapolations back to it then alternate for ever.)

    Args:
        window: Iterations remembered.
        damping: Share of the combined residual that is added to the combined points, in (0, 1].
        parts: Rows of a state for each sample, as in `Field`.
        imaginary: Compare the residuals of the imaginary parts only.
    """

    def __init__(self, window: int, damping: float, *, parts: int = 1, imaginary: bool = False) -> None:
        self.window, self.damping, self.parts, self.imaginary = window, damping, parts, imaginary
        self._turn = 0
        self._memory: tuple[Tensor, ...] = ()  # residuals and images of the last iterations, (samples, window, numbers)
        self._last: tuple[Tensor, ...] = ()  # residual, its norm, and image at the last point that was not refused
        self._now: tuple[Tensor, ...] = ()  # the same at the point just judged
        self._extrapolated: Tensor | None = None  # (samples,) bool; None for none
        self._record = torch.empty(0)  # smallest norm of a residual so far, (samples,)

    def refuse(self, point: State, image: State, inside: Tensor) -> Tensor | None:
        """Judge the points of an iteration.

        Args:
            point: Where the map was applied.
            image: What came out.
            inside: Samples whose image is within the bound, `(samples,)` bool.

        Returns:
            Samples whose point was extrapolated and has no smaller residual than all before, or an image out of
            bounds, `(samples,)` bool; None if no point was extrapolated.
        """
        images = _rows(image, self.parts)
        imaginary = self.imaginary
        new = _rows(image, self.parts, imaginary=True) if imaginary else images
        residuals = new - _rows(point, self.parts, imaginary=imaginary)
        self._now = residuals, torch.linalg.vector_norm(residuals, dim=1), images
        if self._extrapolated is None:
            return None
        return self._extrapolated & ~(inside & (self._now[1] < self._record))  # not a number is refused, too

    def next_point(self, state: State, refused: Tensor | None) -> State:
        """Where each sample goes on.

        Args:
            state: Images of the last points that were not refused: what a plain iteration goes on from.
            refused: What `refuse` returned.
        """
        point = state
        if not self._last:  # every slot holds the first iteration: differences to it are 0
            self._memory = tuple(rows[:, None].repeat(1, self.window, 1) for rows in (self._now[0], self._now[2]))
        elif self._extrapolated is None:
            rows, self._extrapolated = self._suggest()
            point = _state(rows, state, self.parts)
        else:
            if refused is not None:
                column = refused[:, None]
                (r, n, i), (r_old, n_old, i_old) = self._now, self._last
                self._now = torch.where(column, r_old, r), torch.where(refused, n_old, n), torch.where(column, i_old, i)
                both = zip((self._now[0], self._now[2]), self._memory, strict=True)
                self._memory = tuple(torch.where(column[..., None], new[:, None], old) for new, old in both)
            self._extrapolated = None
        self._record = self._now[1] if not self._last else torch.minimum(self._record, self._now[1])
        slot, self._turn = self._turn % self.window, self._turn + 1
        self._memory[0][:, slot], self._memory[1][:, slot] = self._now[0], self._now[2]
        self._last = self._now
        return point

    def _suggest(self) -> tuple[Tensor, Tensor]:
        """Rows of the next points, and which of them are extrapolated."""
        residuals, norms, images = self._now
        # Least squares of |f + sum_i c_i (f_i - f)|, by normal equations that are scaled to a diagonal of 1; the
        # ridge decides between memories that say the same, and is what single precision cannot tell from 0
        differences = self._memory[0] - residuals[:, None]
        gram = (differences @ differences.mT).double()
        right = (differences @ residuals[..., None]).double()
        size = gram.diagonal(dim1=1, dim2=2).sqrt()
        inverse = torch.where(size > 0, 1 / size, 0.0)[..., None]
        system = gram * inverse * inverse.mT
        system.diagonal(dim1=1, dim2=2).fill_(1 + 10 * torch.finfo(residuals.dtype).eps)
        weights, _ = torch.linalg.solve_ex(system, -right * inverse)
        weights = (weights * inverse).to(images.dtype).mT
        # The suggestion: g + sum_i c_i (g_i - g), less what damping holds back of the combined residual
        rows = images + (weights @ (self._memory[1] - images[:, None]))[:, 0]
        if self.damping < 1:
            held = residuals + (weights @ differences)[:, 0]
            rows = rows - (1 - self.damping) * held
        useful = (norms < self._last[1]) & (residuals.abs().amax(1) < NEAR)
        return torch.where(useful[:, None], rows, images), useful

    def select(self, samples: Tensor) -> None:
        """Keep some of the samples only."""
        self._memory, self._last, self._now = (
            tuple(rows[samples] for rows in kept) for kept in (self._memory, self._last, self._now)
        )
        self._extrapolated = None if self._extrapolated is None else self._extrapolated[samples]
        self._record = self._record[samples]
