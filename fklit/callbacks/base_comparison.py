"""The reward and the metrics of unsteered samples beside those of the steered ones, so that reward hacking shows."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from rich.console import Console
from torch import Tensor, nn

from fklit.callbacks.gain_table import print_gains
from fklit.metrics.paired_mean import Gain, PairedMean
from fklit.metrics.prompt_metric import PromptMetric
from fklit.metrics.samples import SampleBatch

_REWARD = "reward"


class RewardHackingWarning(UserWarning):
    """Steering raised its reward while an independent metric fell."""


class BaseComparison:
    """Measures one unsteered sample of each prompt like the chosen one of the method, and compares the two in pairs.

    Args:
        metrics: Metrics of the chosen sample, by name.
        by: Key of the metadata by whose values gains are also taken, where prompts have it; None for none.
        blind: Names of metrics that measure by the model that guides, and so tell nothing about hacking.
    """

    def __init__(self, metrics: Mapping[str, PromptMetric], *, by: str | None, blind: Sequence[str] = ()) -> None:
        self.metrics = dict(metrics)
        self.by = by
        self.blind = set(blind)
        self.pairs: dict[str, PairedMean] = {name: PairedMean() for name in (*self.metrics, _REWARD)}

    def add(self, batch: SampleBatch, measured: Mapping[str, Tensor], task: Any) -> None:
        """Samples the base of B prompts and adds the pairs.

        Args:
            batch: What is known about the method's samples.
            measured: What each metric measured of them, (B, V).
            task: The task that made them.
        """
        labels = ["" if self.by is None else str(line.get(self.by, "")) for line in batch.metadata]
        if not batch.prompts:
            for pair in self.pairs.values():
                pair.update(batch.indices, torch.zeros(0, 2, dtype=torch.float64), labels)
            return
        samples, known = task.sample_base(batch)
        broken = known.result.dropped.cpu() > 0  # of a model that made no number: there is nothing to compare with
        for name, metric in self.metrics.items():
            base = metric.measure(samples, known)[:, 0].cpu().masked_fill(broken, torch.nan)
            self.pairs[name].update(batch.indices, torch.stack([base, measured[name][:, 0].cpu()], dim=1), labels)
        rewards = _rewards(batch, known).masked_fill(broken.unsqueeze(1), torch.nan)
        self.pairs[_REWARD].update(batch.indices, rewards, labels)

    def log(self, task: LightningModule, *, stage: str = "test") -> None:
        """Logs `base/NAME`, `steered/NAME`, `gain/NAME` and `gain_se/NAME`, over all and by label; shows and warns."""
        gains = {name: pair.gains() for name, pair in self.pairs.items()}
        for name, by_label in gains.items():
            for label, found in by_label.items():
                if not found.num_prompts:  # no reward, or none that is finite
                    continue
                key = f"{name}/{label}" if label else name
                values = {"base": found.base, "steered": found.steered, "gain": found.gain}
                values |= {"gain_se": found.error} if found.num_prompts > 1 else {}
                task.log_dict({f"{stage}/{kind}/{key}": value for kind, value in values.items()}, sync_dist=True)
        for name, metric in self.metrics.items():
            if name not in self.blind and metric.higher_is_better is not None:
                better = 1 if metric.higher_is_better else -1
                report_hacking(name, gains[name], gains[_REWARD], better=better)
        lower = frozenset(name for name, metric in self.metrics.items() if metric.higher_is_better is False)
        print_gains({_REWARD: gains[_REWARD], **gains}, lower=lower, console=Console())

    def to(self, device: torch.device) -> None:
        """Moves what processes exchange."""
        nn.ModuleList([*self.pairs.values()]).to(device)


@rank_zero_only
def report_hacking(name: str, measure: Mapping[str, Gain], reward: Mapping[str, Gain], *, better: int = 1) -> None:
    """Warn where the reward rose while a metric fell, each by more than two standard errors; say so if undecided.

    Args:
        name: Of the metric.
        measure: Its gains, over all under "" and by label.
        reward: Those of the reward.
        better: 1 if more of the metric is better, -1 if less is.
    """
    fell = [label for label in measure if reward[label].sign() == 1 and better * measure[label].sign() == -1]
    if fell:
        said = "; ".join(_sentence(name, label, measure[label], reward[label]) for label in fell)
        warnings.warn(
            f"expected {name} to gain with the reward, got reward hacking: {said}; lower reward_scale, or guide by a "
            f"reward that agrees with {name}.",
            RewardHackingWarning,
            stacklevel=2,
        )
    elif "" in measure and reward[""].sign() == 1 and better * measure[""].gain < 0:
        said = _sentence(name, "", measure[""], reward[""])
        rank_zero_info(f"Undecided whether this is reward hacking (within two standard errors): {said}.")


def _sentence(name: str, label: str, measure: Gain, reward: Gain) -> str:
    where = f"of {label!r} " if label else ""
    return (
        f"{where}the reward went from {reward.base:.4g} to {reward.steered:.4g} (s.e. of the gain {reward.error:.2g}), "
        f"{name} from {measure.base:.4g} to {measure.steered:.4g} (s.e. {measure.error:.2g}), "
        f"over {measure.num_prompts} prompts"
    )


def _rewards(steered: SampleBatch, base: SampleBatch) -> Tensor:
    """The rewards of base and chosen sample, (B, 2); NaN without a reward."""
    columns = [
        torch.full((len(batch.prompts),), torch.nan, dtype=torch.float64)
        if batch.result.rewards is None
        else batch.result.rewards.cpu().double().gather(1, batch.chosen.unsqueeze(1)).squeeze(1)
        for batch in (base, steered)
    ]
    return torch.stack(columns, dim=1)
