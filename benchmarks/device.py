"""What steering costs at full size on this device, beside the plain pipeline: seconds and gigabytes, without weights.

    python benchmarks/device.py

SDXL, SD3.5-medium, FLUX.1 and Wan 1.3B are made on the device with random weights in bfloat16, one at a time, and
called with random prompt embeddings: K of 1 and 4, one case with offload, one compiled, one that decodes one sample at
a time. Then come checks: precision of equilibrium propagation under TF32, importance weights in three precisions,
resampling on the device. A line of JSON is printed after each case, and the file is written anew, so that a run that is
cut keeps what it has. Nothing is downloaded. fklit itself, torch, diffusers, transformers and jaxtyping are needed, for
the offload accelerate as well. `--cpu` runs shrunken models, to test this script.
"""

import argparse
import gc
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import jaxtyping  # noqa: F401
except ModuleNotFoundError:
    sys.exit(
        "benchmarks/device.py needs jaxtyping, which is small and pure Python, and got none; pip install jaxtyping."
    )

import torch
from device_checks import equilibrium_propagation, precision, redness, resampling
from device_clock import clock_of, peak_gb, reset_peak, timed
from device_models import MODELS, Model

import fklit
from fklit.feynman_kac import group_generators
from fklit.pipelines.denoisers import denoisers_of
from fklit.pipelines.stochasticity import SchedulerSwapWarning

# Three steps in the middle are scored, and resample whatever the weights.
STEPS, SCHEDULE = 5, fklit.Schedule(1, 3)
EXTRA = {"sdxl": "offload", "sd3": "compiled", "wan": "decode chunk 1"}


def measure(model: Model, pipeline: Any, device: torch.device, dtype: torch.dtype, k: int, **options: Any) -> Any:
    """One row: K particles of one prompt steered, and the plain pipeline's call for as many samples.

    Args:
        model: what the pipeline was built from.
        pipeline: is called.
        device: where it runs.
        dtype: of the embeddings.
        k: particles.
        options: further settings of `fklit.steer`.
    """
    call = {**model.arguments(device, dtype), "num_inference_steps": STEPS}
    rows = {key: value.repeat_interleave(k, dim=0) for key, value in call.items() if isinstance(value, torch.Tensor)}

    def plain(steps: int = STEPS) -> Any:
        generators = [source for source in group_generators(0, 1) for _ in range(k)]
        output = pipeline(**{**call, **rows, "num_inference_steps": steps}, generator=generators, output_type="pt")
        return getattr(output, "images", getattr(output, "frames", None))

    def steered() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SchedulerSwapWarning)
            return fklit.steer(
                pipeline, None, num_particles=k, reward=redness, reward_scale=1e4, reward_schedule=SCHEDULE,
                ess_threshold=1.0, previews=False, pipeline_kwargs=call, **options,
            )  # fmt: skip

    plain(2)  # warm-up
    reset_peak(device)
    plain_seconds, samples = timed(device, plain)
    row: dict[str, Any] = {"plain seconds": plain_seconds, "plain peak GB": peak_gb(device)}
    reset_peak(device)
    with clock_of(device, *denoisers_of(pipeline)) as denoiser, clock_of(device, pipeline.vae.decoder) as decoder:
        seconds, result = timed(device, steered)
    budget = result.budget
    row |= {
        "steered seconds": seconds,
        "steered peak GB": peak_gb(device),
        "denoiser rows": budget.denoiser_calls,
        "seconds a denoiser row": denoiser.seconds / budget.denoiser_calls,
        "decodes": budget.decodes,
        "seconds a decode": decoder.seconds / budget.decodes,
        "steps that resampled": int(result.resampled.any(dim=1).sum()),
        "finite": bool(result.samples.isfinite().all() and samples.isfinite().all()),
    }
    if k == 1:  # one particle is never resampled: its sample is the pipeline's own
        row["equals the plain sample"] = bool(torch.equal(result.samples.flatten(), samples.float().cpu().flatten()))
    return row


def full_size(name: str, device: torch.device, small: bool, report: Callable[..., None]) -> None:
    """All cases of one model."""
    dtype = torch.bfloat16
    model = MODELS[name](small)
    built: list[Any] = []

    def build() -> dict[str, Any]:
        seconds, pipeline = timed(device, lambda: model.pipeline(device, dtype))
        built.append(pipeline)
        parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
        count = sum(parameter.numel() for part in parts for parameter in part.parameters())
        return {"parameters": count, "dtype": str(dtype), "seconds": seconds, "GB": peak_gb(device)}

    reset_peak(device)
    report(model.name, "made", build)
    if not built:
        return
    pipeline = built.pop()
    for k in (1, 4):
        report(model.name, f"K = {k}", lambda: measure(model, pipeline, device, dtype, k))  # noqa: B023
    extra = EXTRA.get(name)
    if extra == "decode chunk 1":
        report(model.name, f"K = 4, {extra}", lambda: measure(model, pipeline, device, dtype, 4, decode_batch=1))
    elif extra is not None:
        prepare = {"offload": _offload, "compiled": _compile}[extra]

        def prepared() -> Any:
            prepare(pipeline, device)
            return measure(model, pipeline, device, dtype, 4)

        report(model.name, f"K = 4, {extra}", prepared)


def _offload(pipeline: Any, device: torch.device) -> None:
    if device.type == "cpu":
        return  # nothing to offload to
    pipeline.to("cpu")
    pipeline.enable_model_cpu_offload(device=device)


def _compile(pipeline: Any, device: torch.device) -> None:
    """Compile the repeated blocks, each by itself, which takes seconds where the whole network takes minutes."""
    for block in pipeline.transformer.transformer_blocks:
        block.compile(backend="eager" if device.type == "cpu" else "inductor")


class Report:
    """Runs cases, prints a row after each and keeps the file up to date.

    Args:
        device: named in the file.
        out: the file; None for none.
        limit: seconds after which no further case is started.
    """

    def __init__(self, device: torch.device, out: Path | None, limit: float) -> None:
        self.failed: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._head = {"device": _device_name(device), "torch": torch.__version__, "steps": STEPS}
        self._out = out
        self._start, self._limit = time.perf_counter(), limit

    def __call__(self, model: str, case: str, run: Callable[[], Any]) -> None:
        """Run one case; an error becomes its row."""
        row: dict[str, Any] = {"model": model, "case": case}
        if time.perf_counter() - self._start > self._limit:
            row["skipped"] = f"started no case after {self._limit:g} seconds; raise --limit"
        else:
            try:
                found = run()
                row |= found if isinstance(found, dict) else {"rows": found}
            except Exception as error:  # one case that fails must not cost the others
                row["error"] = f"{type(error).__name__}: {error}".partition("\n")[0]
                self.failed.append(f"{model}, {case}")
        self._rows.append(row)
        print(json.dumps(row), flush=True)
        if self._out is not None:
            self._out.parent.mkdir(parents=True, exist_ok=True)
            found = {**self._head, "seconds": time.perf_counter() - self._start, "rows": self._rows}
            self._out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def main() -> None:
    """Run all cases."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cpu", action="store_true", help="shrunken models on the CPU")
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--limit", type=float, default=360.0, help="start no case after so many seconds")
    parser.add_argument("--out", type=Path, default=Path("outputs/device.json"))
    options = parser.parse_args()
    found = None if options.cpu else torch.accelerator.current_accelerator()
    if found is None and not options.cpu:
        sys.exit("expected an accelerator, got none that torch can use; run with --cpu for shrunken models.")
    device = found or torch.device("cpu")
    report = Report(device, options.out, options.limit)
    small = options.cpu
    sizes: dict[str, Any] = {"widths": (4, 8, 8, 8), "batch": 2} if small else {}
    report("equilibrium propagation", "TF32", lambda: equilibrium_propagation(device, **sizes))
    report("emoji scenes", "precision", lambda: precision(device, steps=2 if small else 20))
    report("particle system", "resampling", lambda: resampling(device, particles=64 if small else 4096))
    for name in options.models:
        full_size(name, device, small, report)
        gc.collect()
    print(f"written: {options.out}")
    if report.failed:
        sys.exit(f"failed: {'; '.join(report.failed)}")


if __name__ == "__main__":
    main()
