"""What a configuration can say: any graph in plain YAML, and a checkpoint to go on from with changes on top."""

import sys

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from fklit.cli import main

GRAPH = """
seed_everything: 3
model:
  class_path: EqPropTask
  init_args:
    num_classes: 10
    nudge: loss
    network:
      class_path: fklit.eqprop.EquilibriumNetwork
      init_args:
        input_shape: [1, 8, 8]
        layers:
          - {name: edges, shape: [3, 4, 4], activation: {class_path: fklit.eqprop.DoubleSiLU}}
          - {name: left, shape: [12]}
          - {name: right, shape: [9], activation: {class_path: fklit.eqprop.Tanh}, bias: false}
          - {name: top, shape: [10]}
        connections:
          - {class_path: fklit.eqprop.Convolution, init_args: {pre: input, post: edges}}
          - {class_path: fklit.eqprop.Dense, init_args: {pre: edges, post: left, angle: 30.0, gain: 0.5}}
          - {class_path: fklit.eqprop.Dense, init_args: {pre: left, post: right, reciprocal: false}}
          - {class_path: fklit.eqprop.Dense, init_args: {pre: right, post: top, reciprocal: false}}
          - {class_path: fklit.eqprop.Dense, init_args: {pre: top, post: left, reciprocal: false}}
          - {class_path: fklit.eqprop.Dense, init_args: {pre: edges, post: top, tied: true, gain: 0.5}}
        output: top
        num_classes: 10
        free: {max_iterations: 60, tolerance: 1.0e-4, order: sequential, rate: 0.9}
        estimator: {class_path: fklit.eqprop.Cauchy, init_args: {num_phases: 4, beta: 0.2}}
        unconverged: drop
        execution: {channels_last: true, free_precision: bfloat16}
    homeostasis: {class_path: fklit.eqprop.Homeostasis, init_args: {form: squared, probes: 1, warmup_steps: 3}}
    optimizer: {name: sgd, learning_rate: 0.02, rate_factors: {edges-left: 2.0, readout: 0.5}, schedule: cosine}
data: {class_path: DigitsDataModule, init_args: {batch_size: 10, num_train: 40, num_test: 20}}
trainer:
  accelerator: cpu
  devices: 1
  max_epochs: 1
  logger: false
  enable_progress_bar: false
  enable_model_summary: false
  num_sanity_val_steps: 0
  callbacks: [{class_path: AlignmentCallback}]
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fklit"])
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "graph.yaml"
    path.write_text(GRAPH)
    return lambda *extra: main(["fit", f"--config={path}", *extra])


@pytest.mark.slow
def test_a_graph_with_a_loop_from_plain_yaml(run):
    cli = run("--trainer.enable_checkpointing=false")
    network, values = cli.model.network, cli.trainer.callback_metrics
    assert network.names == ("edges", "left", "right", "top") and len(network.colors) == 3
    assert {"train/loss", "val/top5", "alignment/error/edges", "alignment/angle/edges-left"} <= set(values)
    assert float(values["alignment/angle/edges-top"]) == pytest.approx(0, abs=1e-3)  # tied
    # the random part of the backward weights has the variance of its own fan-in, 12 and not 48, so it is twice as long
    assert float(values["alignment/angle/edges-left"]) == pytest.approx(49, abs=8)
    rates = {group["name"]: group["initial_lr"] for group in cli.trainer.optimizers[0].param_groups}
    assert rates["edges-left"] == 0.04 and rates["readout"] == 0.01 and rates["edges-top"] == 0.02


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_checkpoint_with_changes_on_top(run, tmp_path):
    """What the checkpoint does not hold is honored; what it would override in silence is refused."""
    first = run("--trainer.default_root_dir=first")
    saver = next(c for c in first.trainer.callbacks if isinstance(c, ModelCheckpoint))
    more = [f"--ckpt_path={saver.best_model_path}", "--trainer.default_root_dir=second", "--trainer.max_epochs=2"]
    second = run(*more, "--model.homeostasis.weight=2.5")
    assert second.trainer.global_step == 8 and second.model.homeostasis.weight == 2.5
    assert float(second.trainer.callback_metrics["train/homeostasis_weight"]) == 2.5
    with pytest.raises(ValueError, match=r"expected optimizer\.learning_rate=0\.02 as in the checkpoint, .*, got 0\.5"):
        run(*more, "--model.optimizer.learning_rate=0.5")
    with pytest.raises(RuntimeError, match="size mismatch"):
        run(*more, "--model.network.num_classes=7", "--model.num_classes=7")


def test_typos_name_the_key(run, capsys):
    with pytest.raises(SystemExit):
        run("--model.network.free.max_step=3")
    assert "max_iterations" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"expected holomorphic activations .*, got HardSigmoid"):
        run("--model.network.activation=fklit.eqprop.HardSigmoid")


@pytest.mark.parametrize(
    ("words", "renamed"),
    [
        (["--model.network.free.max_steps=3"], "'max_steps' of Relaxation was renamed to 'max_iterations'"),
        (["--model.network.populations=[]"], "'populations' of EquilibriumNetwork was renamed to 'layers'"),
        (["--model.network.unset" + "tled=drop"], "of EquilibriumNetwork was renamed to 'unconverged'"),
        (["--model=fklit.eqprop.task.EqPropTask"], "was renamed to 'fklit.eqprop.EqPropTask'"),
        (["--model=fklit.eqprop.backprop.BackpropTask"], "was renamed to 'fklit.eqprop.BackpropTask'"),
    ],
)
def test_names_of_the_first_version_are_told_the_new_ones(run, capsys, words, renamed):
    with pytest.raises(SystemExit):
        run(*words)
    assert renamed in capsys.readouterr().err
