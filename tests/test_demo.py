import json
import re
from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_stable_diffusion

from fklit.demo.__main__ import main, print_table
from fklit.demo.comparison import Demo
from fklit.demo.settings import DemoSettings, demo_prompts
from fklit.feynman_kac.schedule import Schedule
from fklit.pipelines.source import PipelineSource
from fklit.rewards.function import Function

NAMES = (
    "reward_mean",
    "reward_best",
    "judge_mean",
    "denoiser_calls",
    "decodes",
    "reward_calls",
    "seconds",
    "unique_roots",
)


def redness(images, prompts):
    return images[:, 0].mean(dim=(1, 2)) - images[:, 1].mean(dim=(1, 2))


class _Judge:
    """Calls every second picture correct."""

    def judge(self, images, metadata):
        assert len(images) == len(metadata) and images.min() >= 0 and images.max() <= 1
        return [SimpleNamespace(correct=i % 2 == 0) for i in range(len(images))]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    tiny_stable_diffusion(folder / "pipeline")
    settings = DemoSettings(num_particles=3, num_steps=6, reward_scale=400.0, prompts_per_call=2, schedule=Schedule())
    demo = Demo(PipelineSource(str(folder / "pipeline")), Function(redness), _Judge(), demo_prompts(3), settings)
    return folder / "out", demo, demo.run(folder / "out")


def test_metrics_have_every_figure_and_are_on_disk(demo):
    output, _, metrics = demo
    assert json.loads((output / "metrics.json").read_text()) == metrics
    for method in ("base", "best_of_n", "fk"):
        assert all(isinstance(metrics[method][name], int | float) for name in NAMES), metrics[method]
    assert len(metrics["prompts"]) == 3
    assert {"hardware", "versions", "seed", "settings", "notes"} <= set(metrics)
    assert not list(output.rglob(".*"))


def test_base_and_best_of_n_share_their_samples(demo):
    _, _, metrics = demo
    base, best = metrics["base"], metrics["best_of_n"]
    assert base["denoiser_calls"] == best["denoiser_calls"] == metrics["fk"]["denoiser_calls"] == 3 * 3 * 6
    assert base["reward_best"] == base["reward_mean"] < best["reward_best"]
    assert base["judge_mean"] == pytest.approx(2 / 3)  # slots 0 and 2 of each prompt
    assert best["unique_roots"] == 3


def test_steered_run_starts_from_the_same_noise_and_resamples(demo):
    output, _, _ = demo
    records = [json.loads((output / "fk" / f"{i:05d}" / "record.json").read_text()) for i in range(3)]
    assert any(any(record["resampled"]) for record in records)
    assert all(record["sampler"] == "DDIMScheduler with eta=1" for record in records)


def test_report_shows_all_methods(demo):
    output, _, _ = demo
    text = (output / "report.html").read_text()
    assert {"base", "best of n", "FK steering"} <= set(re.findall(r"</span>([^<]+)</td>", text))
    assert text.count('class="card prompt"') == 3


def test_same_settings_give_the_same_figures(demo, tmp_path):
    _, demo, metrics = demo
    again = demo.run(tmp_path)
    for method in ("base", "best_of_n", "fk"):
        for name in ("reward_mean", "reward_best", "judge_mean", "unique_roots"):
            assert again[method][name] == metrics[method][name]


def test_intervals_are_those_over_prompts_of_the_records(demo):
    from fklit.report.charts import bootstrap_interval

    output, _, metrics = demo
    chosen = {
        run: [json.loads((output / run / f"{i:05d}" / "record.json").read_text()) for i in range(3)]
        for run in ("best_of_n", "fk")
    }
    best, fk = ([max(record["rewards"]) for record in chosen[run]] for run in ("best_of_n", "fk"))
    gaps = torch.tensor(fk, dtype=torch.float64) - torch.tensor(best, dtype=torch.float64)
    mean, low, high = metrics["fk_less"]["best_of_n"]["reward"]
    assert mean == pytest.approx(gaps.mean().item()) and low <= mean <= high
    assert (low, high) == pytest.approx(bootstrap_interval(gaps.numpy()))
    assert metrics["fk_less"]["base"]["judge"][0] == pytest.approx(
        metrics["fk"]["judge_mean"] - metrics["base"]["judge_mean"]
    )
    low, high = metrics["intervals"]["fk"]["reward"]
    assert low <= metrics["fk"]["reward_best"] <= high


def test_table_names_the_methods_and_the_differences(demo, capsys):
    from rich.console import Console

    print_table(demo[2], Console(width=120))
    printed = capsys.readouterr().out
    assert "best of n" in printed and "FK steering" in printed
    assert "FK steering less base: reward +" in printed and "FK steering less best of n: reward " in printed


def test_prompts_are_half_held_out_pairs():
    prompts = demo_prompts(12)
    assert len({prompt.text for prompt in prompts}) == 12
    assert [prompt.held_out for prompt in prompts] == [False] * 6 + [True] * 6
    assert all(prompt.split == "test" for prompt in prompts)
    assert len(demo_prompts(1)) == 1


def test_refuses_no_prompts(capsys):
    with pytest.raises(ValueError, match="no prompts"):
        Demo(PipelineSource("fklit:emoji_scenes"), Function(redness), None, [])
    with pytest.raises(SystemExit):
        main(["--prompts", "0"])
    assert "at least 1" in capsys.readouterr().err
    assert torch.is_grad_enabled()
