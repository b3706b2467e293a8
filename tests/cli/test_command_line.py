"""The command, as users call it: it runs, it says in one line what is wrong, and processes share the work."""

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from tiny import tiny_stable_diffusion

import fklit
from fklit.cli import main
from fklit.cli.messages import explain

REPOSITORY = Path(__file__).parents[2]
SEARCHED = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
CONFIG = REPOSITORY / "configs" / "debug" / "steering.yaml"
PROMPTS = ["a green heart", "two cats", "a red apple", "a dog", "a blue book"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "sd"
    tiny_stable_diffusion(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def _away_from_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])  # Lightning warns if words are given twice


def words(model, subcommand="predict", *, reward="redness", out="out", prompts=PROMPTS):
    init = "--model.init_args"
    return [
        *(subcommand, "--config", str(CONFIG)),
        *(f"{init}.source.init_args.path", model),
        *(f"{init}.reward", json.dumps({"class_path": "Function", "init_args": {"fn": f"steering_rewards:{reward}"}})),
        *(f"{init}.reward_scale", "30"),
        *("--data.init_args.prompts", json.dumps(prompts)),
        *("--trainer.callbacks.init_args.output_dir", out),
        *("--trainer.default_root_dir", out),
        *("--trainer.enable_progress_bar", "false"),
        *("--trainer.enable_checkpointing", "false"),
    ]


def contents(out):
    """Every file, without what depends on the clock, the command's words or the number of processes."""
    found = {}
    for path in sorted(Path(out).rglob("*")):
        if path.is_dir() or path.name == "config.yaml":
            continue
        content = path.read_bytes()
        if path.name == "record.json":
            content = json.loads(content)
            del content["budget"]["seconds"], content["budget"]["peak_memory_bytes"]
        found[str(path.relative_to(out))] = content
    return found


def test_version_needs_nothing(capsys):
    assert main(["--version"]) is None
    assert capsys.readouterr().out == f"fklit {fklit.__version__}\n"


def test_the_installed_command_ends_with_status_0(model, monkeypatch):
    (entry,) = (found for found in entry_points(group="console_scripts") if found.name == "fklit")
    monkeypatch.setattr(sys, "argv", ["fklit", *words(model, prompts=PROMPTS[:1])])
    assert entry.load()() is None  # what it returned would be printed, and be status 1


def test_predict_writes_and_test_reports_from_one_configuration(model, tmp_path):
    cli = main(words(model))
    assert cli.config["predict"]["weights_only"] is True
    assert cli.trainer.predict_loop.return_predictions is False
    assert len(list((tmp_path / "out").glob("*/record.json"))) == len(PROMPTS)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}, "files outside of the output folder"
    cli = main(words(model, "test", out="out2"))
    best = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/record.json")]
    expected = sum(record["rewards"][record["best"]] for record in best) / len(best)
    assert float(cli.trainer.callback_metrics["test/reward_best"]) == pytest.approx(expected, abs=1e-6)


def test_fit_is_refused_in_one_line(model):
    with pytest.raises(ValueError, match="predict"):
        main([*words(model, "fit"), "--trainer.max_epochs", "1"])


@pytest.mark.slow
def test_a_checkpoint_does_not_override_the_command_line(model, tmp_path):
    cli = main([*words(model), "--model.init_args.seed", "3"])
    cli.trainer.save_checkpoint(tmp_path / "saved.ckpt")
    cli = main([*words(model, out="out2"), "--ckpt_path", str(tmp_path / "saved.ckpt"), "--model.init_args.seed", "4"])
    assert cli.model.sampling.keywords()["seed"] == 4
    assert json.loads((tmp_path / "out2" / "00000" / "record.json").read_text())["seed"] == 4


INIT = "--model.init_args"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([f"{INIT}.num_particle", "4"], "of SteeringTask, got 'num_particle'; did you mean 'num_particles'?"),
        ([f"{INIT}.reward_scal", "4"], "expected an argument of SteeringTask, got 'reward_scal'; did you mean"),
        ([f"{INIT}.lambda", "4"], "of SteeringTask, got 'lambda'; it takes source, "),
        (["--model.class_path", "SteerTask"], "expected a class, got 'SteerTask'; did you mean 'SteeringTask'?"),
        ([f"{INIT}.reward", "ClipScore"], "model.reward: expected a class, got 'ClipScore'; did you mean 'CLIPScore'?"),
        ([f"{INIT}.reward", "Zzz"], "expected a class, got 'Zzz'; give the full path of a class"),
        ([f"{INIT}.source.init_args.pth", "x"], "of PipelineSource, got 'pth'; did you mean 'path'?"),
        (
            [f"{INIT}.source.init_args.dtype", "fp16"],
            "dtype: expected one of 'float32', 'float16', 'bfloat16', got 'fp16'",
        ),
        (
            [f"{INIT}.reward_schedule.strat", "1"],
            "an argument of Schedule, got 'strat'; did you mean 'start'?",
        ),
        ([f"{INIT}.num_particles", "four"], "model.num_particles: expected a value of type int, got 'four'."),
        ([f"{INIT}.potential", "diference"], "'terminal', got 'diference'; did you mean 'difference'?"),
        ([f"{INIT}.resampler", "sistematic"], "'birth_death', got 'sistematic'; did you mean 'systematic'?"),
        (
            [f"{INIT}.scheduler", "autom"],
            "one of 'auto', 'stochastic', 'keep', got 'autom'; did you mean 'auto'?",
        ),
        ([f"{INIT}.pipeline_kwargs", "steps=3"], "expected a value of type dict, got 'steps=3'."),
        (["--data.init_args.batchsize", "2"], "of PromptDataModule, got 'batchsize'; did you mean 'batch_size'?"),
        (["--data", "PromptsDataModule"], "got 'PromptsDataModule'; did you mean 'PromptDataModule'?"),
        (["--trainer.callbacks", "SampelWriter"], "got 'SampelWriter'; did you mean 'SampleWriter'?"),
        (["--trainer.callbacks.init_args.output", "x"], "of SampleWriter, got 'output'; did you mean 'output_dir'?"),
        (["--trainer.devise", "2"], "got '--trainer.devise'; did you mean '--trainer.devices'?"),
    ],
)
def test_typos_get_one_useful_line(model, extra, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*words(model), *extra])
    assert caught.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[0] and error[0].startswith("fklit: error: ") and len(error) == 2
    assert not Path("out").exists()


def test_a_wrong_subcommand(capsys):
    with pytest.raises(SystemExit):
        main(["predit"])
    assert "got 'predit'; did you mean 'predict'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([f"{INIT}.num_particles", "0"], "num_particles"),
        ([f"{INIT}.ess_threshold", "2"], "ess_threshold"),
        ([f"{INIT}.reward_schedule.start", "9"], "start=9"),
        ([f"{INIT}.pipeline_kwargs", '{"num_inference_step": 3}'], "did you mean 'num_inference_steps'"),
        ([f"{INIT}.source.init_args.path", "nowhere"], "nowhere"),
        (["--data.init_args.prompts", "[]"], "at least one prompt"),
        (["--data.init_args.path", "p.txt", "--data.init_args.prompts", "null"], "p.txt"),
        (["--data.init_args.batch_size", "0"], "batch_size"),
    ],
)
def test_on_the_command_line_what_was_refused_is_one_line_without_a_traceback(
    model, extra, message, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["fklit", *words(model), *extra])
    with pytest.raises(SystemExit) as caught:
        main()
    error, hint = capsys.readouterr().err.strip().splitlines()[-2:]
    assert caught.value.code == 1 and error.startswith("fklit: error: ") and message in error and "--debug" in hint


def test_a_bug_in_a_users_reward_shows_its_traceback_if_asked_for(model, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fklit", *words(model, reward="broken"), "--debug"])
    with pytest.raises(fklit.rewards.RewardError, match="undefined_name") as caught:
        main()
    causes = [caught.value]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    assert isinstance(causes[-1], NameError)


def test_a_reward_in_the_working_directory_is_found(model, tmp_path, monkeypatch):
    (tmp_path / "my_own_rewards.py").write_text("def dark(images):\n    return -images.mean((1, 2, 3))\n")
    reward = {"class_path": "Function", "init_args": {"fn": "my_own_rewards:dark"}}
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["fklit", *words(model, prompts=["a"]), f"{INIT}.reward", json.dumps(reward)])
    main()
    assert (tmp_path / "out" / "00000" / "record.json").is_file()


def test_messages_that_are_not_jsonargparses_stay_as_they_are():
    assert explain("ambiguous option: --a could match --ab, --ac") == "ambiguous option: --a could match --ab, --ac"
    assert explain("") == ""


def run(arguments, **environment):
    settings = {
        **os.environ,
        "PYTHONPATH": SEARCHED,
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    command = [sys.executable, "-m", "fklit", *arguments]
    return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_processes_and_a_kill_give_the_files_of_one_process(model, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    main(words(model, reward="redness_until_killed", out=str(whole)))
    split = words(model, reward="redness_until_killed", out=str(parts))
    killed = run(split, KILL_AT=PROMPTS[2])
    assert killed.returncode == -9, killed.stderr
    assert len(list(parts.glob("*/record.json"))) == 2
    both = run([*split, "--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"])
    assert both.returncode == 0, both.stderr
    assert "Starting with 2 processes" in both.stderr + both.stdout
    assert "2 of 5 prompts are done already" in both.stderr + both.stdout
    assert contents(parts) == contents(whole)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_report_what_one_reports(model):
    one = main(words(model, "test")).trainer.callback_metrics
    code = (
        "from fklit.cli import main; import json; from pathlib import Path\n"
        "trainer = main().trainer\n"
        "found = {k: float(v) for k, v in trainer.callback_metrics.items()}\n"
        "trainer.is_global_zero and Path('metrics.json').write_text(json.dumps(found))"
    )
    script = Path("report.py")
    script.write_text(code)
    settings = {
        **os.environ,
        "PYTHONPATH": SEARCHED,
        "OMP_NUM_THREADS": "1",
    }
    command = [
        sys.executable,
        str(script),
        *words(model, "test"),
        "--trainer.devices",
        "2",
        "--trainer.strategy",
        "ddp",
    ]
    result = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=500, check=False)
    assert result.returncode == 0, result.stderr
    two = json.loads(Path("metrics.json").read_text())  # not printed: lines of two processes may run into each other
    assert two.keys() == one.keys()
    for name in two.keys() - {"test/seconds"}:
        assert two[name] == pytest.approx(float(one[name]), abs=1e-5), name


@pytest.mark.slow
def test_printing_a_configuration_loads_no_model_library(model):
    code = (
        "import sys; from fklit.cli import main\n"
        "try: main()\n"
        "except SystemExit: print([name for name in ('diffusers', 'open_clip') if name in sys.modules], file=sys.stderr)"  # noqa: E501
    )
    Path("show.py").write_text(code)
    command = [sys.executable, "show.py", *words(model), "--print_config"]
    settings = {**os.environ, "PYTHONPATH": SEARCHED}
    result = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=500, check=True)
    assert result.stderr.strip().endswith("[]") and "num_particles: 2" in result.stdout


@pytest.mark.parametrize("key", ["source.variant", "source.init_args.variant", "init_args.source.init_args.variant"])
def test_null_is_null_in_a_class_within_a_class(key, capsys):
    with pytest.raises(SystemExit):
        main(["predict", "--config", str(CONFIG), f"--model.{key}", "fp16", f"--model.{key}", "null", "--print_config"])
    assert "variant: null" in capsys.readouterr().out


def test_the_text_none_stays_a_text(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "--config", str(CONFIG), "--model.source.path", "None", "--print_config"])
    assert "path: None" in capsys.readouterr().out  # YAML's null is "null"
