"""One row of the compatibility table: how a tiny pipeline of a class is built and called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch


@dataclass(frozen=True)
class Row:
    """A class of diffusers with a builder of a tiny pipeline.

    Attributes:
        pipeline: name of the class that diffusers exports.
        family: of models, as people call it; classes of one family stand together in the table.
        build: makes the pipeline with random weights.
        example: a model on the hub that people run with this class.
        kind: what it makes.
        main: whether it is the class of the family that is used most.
        arguments: of the call, beside prompts, steps and generators, in the form of `pipeline_kwargs`.
        per_sample: names among them of which a plain call wants an entry a sample, in the order of the samples.
        prompts: what it is called with; None for a pipeline without prompts.
        output: the `output_type` at which the class returns pictures in [0, 1].
        bare: whether a plain call takes its one prompt as a text, not in a list.
        steps: `num_inference_steps`; None if the call takes none.
        shown: names among `arguments` without which the class would be refused; the example gives them.
        tokens: whether it samples discrete tokens in a way that an adapter of fklit steers.
        loose: whether its attention rounds by the place of a row in the batch, so that a clone may differ by 2e-5.
    """

    pipeline: str
    family: str
    build: Callable[[], Any]
    example: str
    kind: Literal["image", "video", "audio", "text"] = "image"
    main: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    per_sample: tuple[str, ...] = ()
    prompts: tuple[str, ...] | None = ("a cat", "a dog")
    output: str = "pt"
    bare: bool = False
    steps: int | None = 4
    shown: tuple[str, ...] = ()
    loose: bool = False
    tokens: bool = False

    def make(self) -> tuple[Any, dict[str, Any]]:
        """The pipeline, with the same weights in every process, and the arguments of its call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            pipeline = self.build()
        pipeline.set_progress_bar_config(disable=True)
        return pipeline, self.given()

    def given(self) -> dict[str, Any]:
        """The arguments of a call; containers are copies, as pipelines edit lists in place."""
        return _copied(dict(self.arguments)) | ({} if self.steps is None else {"num_inference_steps": self.steps})


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
