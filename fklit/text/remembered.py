"""Predictions of texts that the last step asked for: most particles of a fine grid have not changed since."""

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from fklit.text.denoising import Denoising, Predictions

_MOST = 2**24  # probabilities that are kept, 128 MiB; of larger steps nothing is


class RememberedPredictions:
    """Asks a `Denoising` for the texts that it was not asked for in the step before.

    A run goes down in time. At a time that is not below the last one, or once a weight of the network has changed, what
    was kept is forgotten.

    Args:
        denoising: What predicts; it may not depend on time.
    """

    def __init__(self, denoising: Denoising) -> None:
        self.denoising = denoising
        self._state = (-1.0, 0)  # the time, and how often weights were written to
        self._texts: Tensor | None = None
        self._last: Predictions | None = None

    def predict(self, tokens: Int64[Tensor, "B K L"], t: float) -> Predictions:
        """Predictions at all masked positions, as `Denoising.predict` gives them.

        Args:
            tokens: The particles.
            t: The time.
        """
        time, writes = self._state
        self._state = (t, self._writes())
        same = t < time and self._state[1] == writes
        if self._texts is not None and not (same and self._texts.device == tokens.device):
            self._texts = self._last = None
        found = self.denoising.predict(tokens) if self._last is None else self._completed(tokens)
        keep = found.log_probs.numel() <= _MOST
        self._texts, self._last = (tokens.flatten(0, 1), found) if keep else (None, None)
        return found

    def _writes(self) -> int:
        network = self.denoising.denoiser
        parameters = network.parameters() if isinstance(network, nn.Module) else ()
        return sum(weight._version for weight in parameters if not weight.is_inference())

    def _completed(self, tokens: Tensor) -> Predictions:
        assert self._texts is not None and self._last is not None
        flat, before = tokens.flatten(0, 1), len(self._texts)
        # Equal texts get equal numbers, by which a text finds one of the last step.
        distinct, number = torch.unique(torch.cat([self._texts, flat]), dim=0, return_inverse=True)
        holder = torch.full((len(distinct),), -1, device=flat.device)
        holder[number[:before]] = torch.arange(before, device=flat.device)
        source = holder[number[before:]]
        known = (source >= 0)[:, None]
        log_probs = self._last.log_probs
        place = torch.where(known, self._last.place.flatten(0, 1)[source], -1)
        at = (flat == self.denoising.mask) & ~known
        if bool(at.any()):
            asked, new = self.denoising.ask(flat, at)
            place = torch.where(at, new + len(log_probs), place)
            log_probs = torch.cat([log_probs, asked]) if len(log_probs) else asked
        # What no particle needs any more is left behind.
        used, row = torch.unique(place[place >= 0], return_inverse=True)
        place = place.masked_scatter(place >= 0, row)
        return Predictions(log_probs[used], place.view(tokens.shape))
