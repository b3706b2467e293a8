"""Figures over seeds, against their definitions computed from the records by hand."""

import json
import math

import numpy as np
import pytest
from tiny_runs import predict

from fklit.evaluation import over_seeds
from fklit.evaluation.__main__ import main
from fklit.report.reading import write_scores

SEEDS = (42, 43, 44)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed in SEEDS:
        predict(folder / str(seed), seed=seed)
    return [folder / str(seed) for seed in SEEDS]


def best(run):
    """Reward of the chosen sample of each prompt."""
    records = [json.loads(path.read_text()) for path in sorted(run.glob("*/record.json"))]
    return [record["rewards"][record["best"]] for record in records]


def test_means_and_errors(runs):
    table = np.array([best(run) for run in runs])  # (seeds, prompts)
    figure = over_seeds(runs)["reward_best"]
    assert list(figure.by_seed) == list(SEEDS)
    assert list(figure.by_seed.values()) == pytest.approx(table.mean(1).tolist())
    assert list(figure.error_by_seed.values()) == pytest.approx((table.std(1, ddof=1) / 2).tolist())  # 4 prompts
    assert figure.mean == pytest.approx(table.mean())
    assert figure.error == pytest.approx(table.mean(1).std(ddof=1) / math.sqrt(3))
    assert figure.prompt_error == pytest.approx(table.mean(0).std(ddof=1) / 2)
    assert over_seeds(runs)["denoiser_calls"].error == 0


def test_paired_differences(runs, tmp_path):
    other = []
    for seed, run in zip(SEEDS, runs, strict=True):
        predict(tmp_path / str(seed), seed=seed)
        other.append(tmp_path / str(seed))
        write_scores(run, "judge", {index: [0.25 * index, 0.25 * index] for index in range(4)})
        write_scores(other[-1], "judge", {index: [seed / 42, seed / 42] for index in range(4)})
    figures = over_seeds(runs, other)
    assert figures["reward_best"].mean == figures["reward_best"].error == 0  # the same runs
    judge = figures["judge"]
    assert list(judge.by_seed.values()) == pytest.approx([0.375 - seed / 42 for seed in SEEDS])
    assert judge.prompt_error == pytest.approx(np.std([0, 0.25, 0.5, 0.75], ddof=1) / 2)


def test_the_command_prints_a_table_and_json(runs, capsys):
    assert main([str(run) for run in runs]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "seed",
        "42",
        "seed",
        "43",
        "seed",
        "44",
        "mean",
        "s.e.",
        "(seeds)",
        "s.e.",
        "(prompts)",
    ]
    assert len({len(line) for line in lines}) == 1 and any(line.split()[0] == "reward_best" for line in lines)
    assert main([str(runs[0]), "--json"]) == 0
    figure = json.loads(capsys.readouterr().out)["reward_best"]
    assert figure["error"] is None and figure["by_seed"] == {"42": pytest.approx(np.mean(best(runs[0])))}


def _copy(run, to, *, settings=None, drop=None, chosen=None):
    """A run with something changed."""
    for path in run.rglob("*.json"):
        target = to / path.relative_to(run)
        target.parent.mkdir(parents=True, exist_ok=True)
        content = json.loads(path.read_text())
        if path.name == "run.json" and settings:
            content["settings"] |= settings
        if path.name == "record.json" and chosen is not None:
            content["rewards"] = [chosen] * len(content["rewards"])
        if drop is None or drop not in path.parts:
            target.write_text(json.dumps(content))
    return to


def test_runs_that_do_not_belong_together_are_refused(runs, tmp_path):
    first = runs[0]
    cases = [
        ([first, first], r"expected another seed for each run, got .*42 with seed 42 again"),
        ([first, _copy(runs[1], tmp_path / "a", settings={"reward_scale": 2.0})],
         r"differ in their seed alone, got .*a with reward_scale: 1\.0 -> 2\.0; name others"),
        ([first, _copy(runs[1], tmp_path / "b", drop="00003")],
         r"expected the prompts of .*42 \(4\), got others in .*b \(3\)"),
        ([_copy(first, tmp_path / "c", settings={"seed": None})], r"expected a run with a seed, got .*c"),
        ([_copy(first, tmp_path / "d", chosen=None, settings={})], None),
        ([_copy(first, tmp_path / "e", chosen="nan")], r"expected reward_best of every prompt, got none or no finite"),
        ([], "expected the folder of at least one run"),
    ]  # fmt: skip
    for given, message in cases:
        if message is None:
            assert over_seeds(given)["reward_best"].mean == over_seeds([first])["reward_best"].mean
            continue
        with pytest.raises(ValueError, match=message) as caught:
            over_seeds(given)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"expected the seeds \[42\] on both sides, got \[43\]"):
        over_seeds([first], [runs[1]])


def test_the_command_says_what_is_wrong_in_a_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("fklit: expected the output folder of a run")
