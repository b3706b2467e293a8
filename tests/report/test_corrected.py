"""The report of corrected guidance: what a real run returned is on the page, and nothing that it does not have."""

import json
import re

import numpy as np
import pytest
from html_page import parse
from tiny import tiny_stable_diffusion

from fklit.correctors import correct
from fklit.feynman_kac.schedule import Schedule
from fklit.pipelines.source import PipelineSource
from fklit.report import read_run, write_report
from fklit.report.reading import write_scores
from fklit.report.record import parse_record
from fklit.report.summary import MethodRun
from fklit.report.writing import write_prompt
from fklit.rewards import Function

PROMPTS = ["a green heart", "two cats"]
STEPS, SLOTS = 6, 4


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    tiny_stable_diffusion(folder)
    return PipelineSource(str(folder)).pipeline


def run(pipeline, **changes):
    settings = {"guidance_scale": 4.0, "num_particles": SLOTS, "ess_threshold": 1.0, "seed": 3} | changes
    return correct(
        pipeline, PROMPTS, pipeline_kwargs={"num_inference_steps": STEPS, "eta": 1.0}, scheduler="keep", **settings
    )


@pytest.fixture(scope="module")
def plain(pipeline):
    return run(pipeline)


@pytest.fixture(scope="module")
def rewarded(pipeline):
    bright = Function(lambda images: images.mean((1, 2, 3)))
    return run(pipeline, reward=bright, reward_scale=200.0, reward_schedule=Schedule(indices=[1, 4]))


def write(folder, result):
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"settings": {"ess_threshold": 1.0, "potential": "difference"}}))
    for b, index in enumerate(result.prompt_indices):
        write_prompt(folder / f"{index:05d}", result.record(b), result.images[b], {"prompt": result.prompts[b]})
    return folder


def text_of(path):
    return re.sub(r"base64,[^\"]*", "", path.read_text())


def test_a_record_without_a_reward_is_read_as_it_was(plain):
    for b in range(2):
        record = parse_record(plain.record(b))
        assert record.rewards is None and record.reward_path is None and np.isnan(record.values).all()
        assert record.values.shape == (STEPS + 1, SLOTS)
        assert record.steps.tolist() == list(range(STEPS))
        assert record.log_weight_std.tolist() == plain.log_weight_std[:, b].tolist()
        assert record.ess[:-1].tolist() == plain.ess[:, b].tolist()
        assert record.ess[-1] == pytest.approx(float(plain.ess[-1, b])), "no weights after the last step"
        assert record.weights == pytest.approx(plain.log_weights[b].exp().numpy())
        assert np.array_equal(record.ancestors, plain.ancestors[:, b].numpy())
        assert record.chosen == record.drawn == int(plain.sample_index()[b, 0])


def test_a_reward_fills_the_steps_that_scored(rewarded):
    record = parse_record(rewarded.record(1))
    assert record.values[[1, 4]].tolist() == rewarded.reward_path[:, 1].tolist()
    assert record.values[-1].tolist() == rewarded.rewards[1].tolist()
    assert np.isnan(record.values[[0, 2, 3, 5]]).all()
    assert record.ess.tolist() == rewarded.ess[:, 1].tolist() and len(record.ess) == STEPS + 1
    assert record.chosen == int(rewarded.best_index()[1])
    assert record.drawn == int(rewarded.sample_index()[1, 0])


def test_the_page_shows_weights_and_invents_no_reward(plain, tmp_path):
    folder = write(tmp_path / "run", plain)
    path = write_report(tmp_path / "report.html", corrected=folder)
    page, text = parse(path), re.sub(r"</?abbr[^>]*>", "", text_of(path))
    assert "<title>Corrected guidance</title>" in text
    assert page.tags.count("svg") == 2 + 2 * 3  # over prompts log weights and ESS; of a prompt log weights, ESS, tree
    assert text.count("\N{BLACK DIAMOND} sample") == 2 and "\N{BLACK STAR}" not in text
    for words in ("reward path", "reward of", "mean reward", "<b>potential", "<b>reward", "nan"):
        assert words not in text.lower()
    for b in range(2):
        slot = int(plain.sample_index()[b, 0])
        assert f"sample {slot}</span><b>weight {100 * float(plain.log_weights[b, slot].exp()):.0f}" in text
        assert f"{int(plain.unique_roots[b])} of {SLOTS} ancestors left" in text
    assert "<b>guidance scale</b>4" in text and "<b>correction</b>1" in text
    figures = MethodRun("corrected", read_run(folder)).figures()
    assert figures["ess"] == pytest.approx(float(plain.ess[-1].mean()))
    assert figures["log_weight_std"] == pytest.approx(float(plain.log_weight_std.mean()))
    assert figures["denoiser_calls"] == plain.budget.denoiser_calls
    assert np.isnan(figures["reward_best"])


def test_with_a_reward_its_values_are_shown_too(rewarded, tmp_path):
    path = write_report(tmp_path / "report.html", corrected=write(tmp_path / "run", rewarded))
    page, text = parse(path), text_of(path)
    assert page.tags.count("svg") == 3 + 2 * 4
    for b in range(2):
        best = int(rewarded.best_index()[b])
        assert f"\N{BLACK STAR} sample {best}</span><b>reward {float(rewarded.rewards[b, best]):.3f}" in text
    circles = re.findall(r"<title>sample \d: [\d.]+</title>", text)
    assert len(circles) == 2 * 3 * SLOTS  # two scored steps and the end


def test_the_heuristic_beside_the_corrected(plain, pipeline, tmp_path):
    heuristic = write(tmp_path / "heuristic", run(pipeline, correction=0.0))
    corrected = write(tmp_path / "corrected", plain)
    for folder in (heuristic, corrected):
        write_scores(folder, "judge", {b: [1, 0, 1, 1] for b in range(2)})
    path = write_report(tmp_path / "report.html", base=heuristic, corrected=corrected, title="Both")
    text = text_of(path)
    assert "<title>Both</title>" in text and text.count('class="method"') == 4
    assert "judge: corrected guidance over base" in text
    figures = MethodRun("base", read_run(heuristic)).figures()
    assert figures["judge_mean"] == pytest.approx(0.75) and "ess" not in figures


def test_a_partial_correction_is_named(pipeline, tmp_path):
    folder = write(tmp_path / "run", run(pipeline, correction=0.25))
    assert "25 % of them counted" in text_of(write_report(tmp_path / "report.html", corrected=folder))


def test_steps_without_weights_are_marked(pipeline, tmp_path):
    result = run(pipeline, weight_schedule=Schedule(0, 1))
    assert result.weighted_steps == (0, 1)
    assert parse_record(result.record(0)).weighted.tolist() == [True] * 2 + [False] * 4
    page = write_report(tmp_path / "report.html", corrected=write(tmp_path / "run", result)).read_text()
    assert "(hollow: not counted)" in page and page.count("trenddot idle") == 4 * 4, (
        "two prompts, and two means over them"
    )


def test_one_particle_and_dead_weights(pipeline, plain, tmp_path):
    parse(write_report(tmp_path / "one.html", corrected=write(tmp_path / "one", run(pipeline, num_particles=1))))
    folder = write(tmp_path / "dead", plain)
    path = folder / "00000" / "record.json"
    record = json.loads(path.read_text())
    record |= {"log_weights": [None] * SLOTS, "log_weight_std": [None] * STEPS, "log_z": None, "degenerate": True}
    path.write_text(json.dumps(record))
    text = text_of(write_report(tmp_path / "dead.html", corrected=folder))
    parse(tmp_path / "dead.html")
    assert "All weights vanished" in text and "nan" not in text.lower()


def test_a_run_is_given_as_what_it_is(plain, tmp_path):
    folder = write(tmp_path / "run", plain)
    with pytest.raises(
        ValueError,
        match=r"expected a run of FK steering, got .* with a run of corrected guidance; pass it as corrected=",
    ):
        write_report(tmp_path / "report.html", steered=folder)
    record = json.loads((folder / "00000" / "record.json").read_text())
    del record["drawn"]
    (folder / "00000" / "record.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"expected a record of SampleWriter, got .*drawn"):
        read_run(folder)
