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
from fklit.report.words import WORDS, Glossary

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
    assert number(12345.0) == "1.23e+04" and number(2.5e-5) == "2.50e\N{MINUS SIGN}05"
    assert number(0.0049, 2) == "0.005" and number(-0.00031) == "\N{MINUS SIGN}0.0003"
    assert ticks(0, 1) == [0, 0.25, 0.5, 0.75, 1.0]
    assert ticks(2, 2) == [2]
    values = np.array([1.0, 2.0, 3.0, 7.0])
    picks = np.random.default_rng(0).integers(4, size=(4000, 4))
    assert bootstrap_interval(values) == tuple(np.quantile(values[picks].mean(axis=1), [0.025, 0.975]))
    low, high = bootstrap_interval(np.array([1.0, 2.0, 3.0]))
    assert 1 <= low < 2 < high <= 3
    assert math.isnan(bootstrap_interval(np.array([1.0]))[0])


@pytest.mark.slow
def test_the_page_limits_its_size(tmp_path):
    prompts = [f"a green heart {i}" for i in range(12)]
    run = write_run(tmp_path / "run", prompts)
    one, few, most, all_ = (write_report(tmp_path / f"{n}.html", steered=run, max_prompts=n) for n in (1, 4, 11, None))
    page = parse(few)
    assert [name for name in page.ids if re.fullmatch(r"p\d{5}", name)] == [f"p{i:05d}" for i in range(4)]
    assert {a for a in page.addresses if a.startswith("#p0")} == {f"#p{i:05d}" for i in range(4)}
    text = few.read_text()
    assert all(prompt in text for prompt in prompts)
    assert "4 of 12 prompts are shown in full below" in text and "in full below" not in all_.read_text()
    size = {path: path.stat().st_size for path in (one, few, most, all_)}
    full = (size[all_] - size[most]) / 1
    assert size[few] - size[one] == pytest.approx(3 * full, rel=0.1)
    card = (size[one] - full) / 12
    assert card < 6_000 < full
    single = write_run(tmp_path / "single", ["a lone star"])
    assert "a lone star" in write_report(tmp_path / "single.html", steered=single, max_prompts=0).read_text()
    with pytest.raises(ValueError, match="expected max_prompts of at least 0, or None for all prompts, got -1"):
        write_report(tmp_path / "no.html", steered=run, max_prompts=-1)


def test_pictures_of_a_prompt_have_alternative_texts_of_their_own(runs, tmp_path):
    base, steered = runs
    text = write_report(tmp_path / "report.html", base=base, best_of_n=base, steered=steered).read_text()
    index, *sections = re.split(r'<section class="card prompt"', text)
    for part, pictures in ((index, 9), *((section, 3 + 3 * 4) for section in sections)):
        alternatives = re.findall(r'<img[^>]* alt="([^"]*)"', part)
        assert len(alternatives) == pictures and len(set(alternatives)) == pictures
        assert any(alt.startswith("FK steering, ") for alt in alternatives)


def test_words_are_explained(runs, tmp_path):
    base, steered = runs
    text = write_report(tmp_path / "report.html", base=base, steered=steered).read_text()
    explained = dict((b, a) for a, b in re.findall(r'<abbr title="([^"]+)">([^<]+)</abbr>', text))
    assert {"log Z", "ancestors", "reward scale", "potential", "95 % interval", "denoiser"} <= set(explained)
    assert explained["reward scale"] == WORDS["reward scale"]
    listed = re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)</dd>", text)
    assert {meaning for _, meaning in listed} == set(explained.values()) and len(listed) == len(set(listed))
    glossary = Glossary()
    assert str(glossary.explain("<b>")) == "&lt;b&gt;" and str(glossary.explain_fact("2 <i>")) == "2 &lt;i&gt;"
    assert glossary.entries() == []


def test_long_prompts_do_not_stretch_the_page(tmp_path):
    run = write_run(tmp_path / "run", ["word " * 300 + "x" * 500, "a star"])
    text = write_report(tmp_path / "report.html", steered=run).read_text()
    assert re.search(r'<h2 class="long">', text)
    assert "-webkit-line-clamp:4" in text and max(map(len, re.findall(r'alt="([^"]*)"', text))) < 260
