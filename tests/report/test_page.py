import json
import math
import re

import numpy as np
import pytest
from html_page import parse
from synthetic_runs import write_run

from fklit.report import read_run, write_report
from fklit.report.charts import bootstrap_interval
from fklit.report.formatting import number
from fklit.report.reading import write_scores
from fklit.report.shapes import ticks
from fklit.report.summary import MethodRun

PROMPTS = ["a green heart", '<script>alert(1)</script> & "co"', "two cats"]


@pytest.fixture
def runs(tmp_path):
    base = write_run(tmp_path / "base", PROMPTS, steered=False, steps=(), seed=1)
    steered = write_run(tmp_path / "fk", PROMPTS, seed=2)
    return base, steered


def test_three_methods_on_one_self_contained_page(runs, tmp_path):
    base, steered = runs
    page = parse(write_report(tmp_path / "report.html", base=base, best_of_n=base, steered=steered, title="A <title>"))
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    assert "script" not in page.tags
    anchors = {address[1:] for address in page.addresses if address.startswith("#")}
    assert anchors <= set(page.ids)
    assert [name for name in page.ids if re.fullmatch(r"p\d{5}", name)] == ["p00000", "p00001", "p00002"]
    text = (tmp_path / "report.html").read_text()
    assert "&lt;script&gt;" in text and "A &lt;title&gt;" in text
    assert {path.name for path in tmp_path.iterdir()} == {"base", "fk", "report.html"}
    assert re.search(r"url\(|@import|https?://", text) is None


@pytest.mark.parametrize("particles", [1, 3, 8, 20])
def test_steered_alone_with_any_number_of_particles(tmp_path, particles):
    run = write_run(tmp_path / "run", ["a star"], particles=particles, previews=particles != 3)
    page = parse(write_report(tmp_path / "report.html", steered=run))
    assert page.tags.count("svg") == 3  # reward path, ESS, tree; one prompt and one method compare nothing


def test_methods_may_cover_different_prompts(tmp_path):
    base = write_run(tmp_path / "base", PROMPTS[:2], steered=False, steps=())
    steered = write_run(tmp_path / "fk", PROMPTS)
    page = parse(write_report(tmp_path / "report.html", base=base, steered=steered))
    assert "p00002" in page.ids


def test_broken_numbers_do_not_break_the_page(tmp_path):
    run = write_run(tmp_path / "run", ["a star"])
    path = run / "00000" / "record.json"
    record = json.loads(path.read_text())
    record["rewards"][1] = None
    record["log_weights"][1] = None
    record["reward_path"][2][0] = None
    record["log_z"] = None
    record["budget"] = {"seconds": 1.0}
    record["degenerate"] = True
    record["prompt"] = ""
    path.write_text(json.dumps(record))
    text = write_report(tmp_path / "report.html", steered=run).read_text()
    parse(tmp_path / "report.html")
    assert "nan" not in re.sub(r"base64,[^\"]*", "", text).lower().replace("nano", "")
    assert "All weights vanished" in text
    assert read_run(run).records[0].weights[1] == 0


def test_unfinished_prompts_are_skipped(tmp_path):
    run = write_run(tmp_path / "run", PROMPTS)
    (run / "00001" / "record.json").unlink()
    assert sorted(read_run(run).records) == [0, 2]


def test_messages_for_bad_input(tmp_path):
    with pytest.raises(ValueError, match="expected the output folder of at least one run"):
        write_report(tmp_path / "report.html")
    with pytest.raises(FileNotFoundError, match="which is not a folder"):
        write_report(tmp_path / "report.html", steered=tmp_path / "no")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no finished prompt"):
        write_report(tmp_path / "report.html", steered=tmp_path / "empty")
    run = write_run(tmp_path / "run", ["a star"])
    (run / "00000" / "samples" / "0002.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"0002\.png is missing"):
        write_report(tmp_path / "report.html", steered=run)
    assert not (tmp_path / "report.html").exists()
    (run / "00000" / "record.json").write_text("{")
    with pytest.raises(ValueError, match="expected a record of SampleWriter"):
        read_run(run)


def test_records_of_version_0_1_are_refused_by_name(tmp_path):
    run = write_run(tmp_path / "run", ["a star"])
    path = run / "00000" / "record.json"
    record = json.loads(path.read_text())
    del record["scored_steps"]
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"record of SampleWriter, got .*record\.json .*keys of fklit 0\.1"):
        read_run(run)


def test_failed_report_keeps_the_old_one(tmp_path):
    run = write_run(tmp_path / "run", ["a star"])
    target = write_report(tmp_path / "report.html", steered=run)
    before = target.read_text()
    (run / "00000" / "samples" / "0000.png").unlink()
    with pytest.raises(FileNotFoundError):
        write_report(target, steered=run)
    assert target.read_text() == before


def test_figures_follow_their_definitions(runs):
    base, steered = runs
    write_scores(base, "judge", {0: [1, 0, 0, 0], 1: [0, 0, 0, 0], 2: [1, 1, 1, 0]})
    run = read_run(base)
    plain, best = MethodRun("base", run).figures(), MethodRun("best_of_n", run).figures()
    rewards = np.array([record.rewards for record in run.records.values()])
    assert plain["reward_mean"] == plain["reward_best"] == pytest.approx(rewards.mean())
    assert best["reward_best"] == pytest.approx(rewards.max(axis=1).mean())
    weights = np.exp([record.log_weights for record in run.records.values()])
    weights /= weights.sum(axis=1, keepdims=True)
    assert best["reward_mean"] == pytest.approx((weights * rewards).sum(axis=1).mean())
    assert plain["judge_mean"] == pytest.approx(4 / 12)
    chosen = [record.scores["judge"][record.chosen] for record in run.records.values()]
    assert best["judge_mean"] == pytest.approx(np.mean(chosen))
    assert best["denoiser_calls"] == sum(record.budget["denoiser_calls"] for record in run.records.values())
    assert best["peak_memory_bytes"] == 512 * 2**20
    assert "judge_mean" not in MethodRun("fk", read_run(steered)).figures()


def test_scores_are_checked_and_kept(runs):
    base, _ = runs
    with pytest.raises(ValueError, match="expected 4 scores of prompt 0, one per sample, got 2"):
        write_scores(base, "judge", {0: [1, 0]})
    write_scores(base, "judge", {0: [1, 0, 0, 0]})
    write_scores(base, "beauty", {0: [0.5, 0.1, 0.2, 0.3]})
    assert set(read_run(base).records[0].scores) == {"judge", "beauty"}


def test_small_helpers():
    assert number(-0.5) == "\N{MINUS SIGN}0.500"
    assert number(None) == number(math.nan) == "\N{EN DASH}"
    assert number(12345.0) == "1.23e+04"
    assert ticks(0, 1) == [0, 0.25, 0.5, 0.75, 1.0]
    assert ticks(2, 2) == [2]
    values = np.array([1.0, 2.0, 3.0, 7.0])
    picks = np.random.default_rng(0).integers(4, size=(4000, 4))
    assert bootstrap_interval(values) == tuple(np.quantile(values[picks].mean(axis=1), [0.025, 0.975]))
    low, high = bootstrap_interval(np.array([1.0, 2.0, 3.0]))
    assert 1 <= low < 2 < high <= 3
    assert math.isnan(bootstrap_interval(np.array([1.0]))[0])
