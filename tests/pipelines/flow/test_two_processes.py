"""Two processes, each with a prompt of its own, make the samples that one process makes of both, bit for bit."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from tiny_flow import PIPELINES, make

import fklit
from fklit.pipelines.stochasticity import SchedulerSwapWarning

PROMPTS = ["a cat", "a dog"]
VIDEOS = {"wan": 5, "ltx": 9}
WHOLE = {"z-image"}  # its network takes lists, each entry by itself: there are no chunks


def brightness(samples, prompts=None):
    return samples.flatten(1).mean(1)


def steered(name, indices):
    pipeline, arguments = make(name)
    if name in VIDEOS:
        arguments = {**arguments, "num_frames": VIDEOS[name]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SchedulerSwapWarning)
        result = fklit.steer(
            pipeline, [PROMPTS[i] for i in indices], prompt_indices=indices, num_particles=3, reward=brightness,
            reward_scale=1e5, ess_threshold=1.0, reward_schedule=fklit.Schedule(0, 3), seed=3,
            max_batch=None if name in WHOLE else 3, pipeline_kwargs={**arguments, "num_inference_steps": 4},
        )  # fmt: skip
    return {"samples": result.samples, "log_weights": result.log_weights, "ancestors": result.ancestors}


def main(index, path):
    """What one of two processes does: its prompt, with every model."""
    torch.set_num_threads(1)
    torch.save({name: steered(name, [index]) for name in PIPELINES}, path)


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    here = Path(__file__)
    paths = [tmp_path / f"{index}.pt" for index in range(2)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (here.parents[3], here.parents[2])))}
    processes = [
        subprocess.Popen([sys.executable, "-W", "ignore", str(here), str(i), str(path)], env=environment)
        for i, path in enumerate(paths)
    ]
    together = {name: steered(name, [0, 1]) for name in PIPELINES}
    assert [process.wait(600) for process in processes] == [0, 0]
    apart = [torch.load(path, weights_only=True) for path in paths]
    assert len(together) >= 16
    for name, both in together.items():
        for b in range(2):
            for key, axis in (("samples", 0), ("log_weights", 0), ("ancestors", 1)):
                found = apart[b][name][key]
                assert torch.equal(found, both[key].narrow(axis, b, 1)), f"{key} of prompt {b} with {name}"


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
