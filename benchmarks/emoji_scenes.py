"""How often the shipped text-to-image model draws what it is asked for, by the judge, and the images of its card.

    python benchmarks/emoji_scenes.py --prompts 210 --samples 4 --out outputs/emoji_scenes

A third of the prompts ask for one kind of object, a third for pairs of nouns that training saw together, a third for
pairs that are held out. Prints JSON: shares of correct images by task, for pairs seen and held out, and seconds.
"""

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path

import torch

from fklit import assets
from fklit.emoji.prompts import ScenePrompt, test_prompts
from fklit.metrics.detector import Judge

PAIRS = ("two_object", "position", "color_attr")


def draw(pipeline, prompts: list[str], *, steps: int, guidance: float, eta: float, seed: int, batch: int = 64):
    """Images `(N, 3, 64, 64)`, each from the noise of its own number."""
    images = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        generators = [torch.Generator().manual_seed(seed * 1_000_003 + start + index) for index in range(len(part))]
        result = pipeline(
            part,
            num_inference_steps=steps,
            guidance_scale=guidance,
            eta=eta,
            generator=generators,
            output_type="pt",
        )
        images.append(result.images)
    return torch.cat(images)


def choose(number: int) -> list[ScenePrompt]:
    """A third without pairs, two thirds pairs, of which half are held out."""
    singles = test_prompts(number // 3, tags=("single_object", "counting", "colors"))
    seen = test_prompts(number // 3, tags=PAIRS, held_out=False)
    held = test_prompts(number - len(singles) - len(seen), tags=PAIRS, held_out=True)
    return singles + seen + held


def report(prompts: list[ScenePrompt], correct: list[bool]) -> dict[str, float]:
    """Shares of correct images."""
    groups = defaultdict(list)
    for prompt, right in zip(prompts, correct, strict=True):
        groups[prompt.tag].append(right)
        if len(prompt.wanted) == 2:
            groups["pairs held out" if prompt.held_out else "pairs seen"].append(right)
    return {name: round(sum(rights) / len(rights), 3) for name, rights in sorted(groups.items())}


def save_grid(images, prompts: list[str], path: Path, columns: int) -> None:
    """A grid with the prompts above the images."""
    from matplotlib.figure import Figure

    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.25 * columns, 1.4 * rows), dpi=90, layout="constrained")
    for axis in figure.subplots(rows, columns, squeeze=False).flat:
        axis.axis("off")
    for axis, image, prompt in zip(figure.axes, images, prompts, strict=False):
        axis.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
        axis.set_title(prompt, fontsize=5.5, pad=1)
    figure.savefig(path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default=None, help="of the pipeline; the shipped one by default")
    parser.add_argument("--judge", default=None, help="folder of the judge; the shipped one by default")
    parser.add_argument("--prompts", type=int, default=210)
    parser.add_argument("--samples", type=int, default=4, help="pictures of each prompt")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--eta", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="outputs/emoji_scenes")
    options = parser.parse_args()

    from diffusers import StableDiffusionPipeline

    folder = options.folder or str(assets.path("emoji_scenes"))
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    prompts = [prompt for prompt in choose(options.prompts) for _ in range(options.samples)]
    texts = [prompt.text for prompt in prompts]
    start = time.perf_counter()
    images = draw(pipeline, texts, steps=options.steps, guidance=options.guidance, eta=options.eta, seed=options.seed)
    seconds = time.perf_counter() - start
    verdicts = Judge(options.judge).judge(images, [prompt.metadata() for prompt in prompts])
    shares = report(prompts, [verdict.correct for verdict in verdicts])
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    save_grid(images[:: options.samples][:48], texts[:: options.samples][:48], out / "test_prompts.png", 8)
    settings = {name: getattr(options, name) for name in ("steps", "guidance", "eta", "seed", "samples")}
    result = {"pictures": len(images), **settings, "seconds": round(seconds, 1), "correct": shares}
    (out / "judge.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
