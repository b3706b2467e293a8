"""Numbers of each prompt, kept by its index, so that one that comes twice counts once."""

from typing import ClassVar

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torchmetrics import Metric

from fklit.metrics.prompt_mean import joined

_LABEL_BYTES = 64  # states that processes exchange are tensors, so labels are rows of bytes


class PromptTable(Metric):
    """A table of `num_values` numbers and a label for each prompt, wherever and however often it was seen.

    Distributed samplers repeat items until every process has as many; a prompt has one row by its index.
    """

    full_state_update = False
    is_differentiable = False
    num_values: ClassVar[int] = 1
    indices: list[Tensor]
    rows: list[Tensor]
    labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("indices", "rows", "labels"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def add(self, indices: Int64[Tensor, " b"], rows: Float64[Tensor, "b v"], labels: list[str]) -> None:
        """Adds B rows, which may be none.

        Args:
            indices: Of the prompts in their data set.
            rows: Their numbers.
            labels: Their labels.

        Raises:
            ValueError: A label has more than 64 bytes.
        """
        long = next((label for label in labels if len(label.encode()) > _LABEL_BYTES), None)
        if long is not None:
            raise ValueError(
                f"expected labels of at most {_LABEL_BYTES} bytes, got {long!r}; split by another key of the metadata."
            )
        padded = [list(label.encode().ljust(_LABEL_BYTES, b"\0")) for label in labels]
        encoded = torch.tensor(padded, dtype=torch.uint8, device=self.device)
        self.labels.append(encoded.reshape(-1, _LABEL_BYTES))
        self.indices.append(indices.to(self.device))
        self.rows.append(rows.to(self.device, torch.float64))

    def table(self) -> tuple[Float64[Tensor, "n v"], list[str]]:
        """The numbers of all prompts so far, each once and in order of their indices, and their labels."""
        places = {int(index): place for place, index in enumerate(joined(self.indices).tolist())}
        order = [places[index] for index in sorted(places)]
        rows, labels = joined(self.rows).reshape(-1, self.num_values), joined(self.labels).reshape(-1, _LABEL_BYTES)
        return rows[order], [bytes(row).rstrip(b"\0").decode() for row in labels[order].tolist()]


def rows_of(label: str, labels: list[str]) -> Tensor:
    """Which rows of a table have a label, bool `(n,)`."""
    return torch.tensor([other == label for other in labels], dtype=torch.bool)
