"""The judge that ships with fklit, on real scenes and on noise."""

import torch
from real_scenes import real_scenes

from fklit import assets
from fklit.metrics import Compositional, Judge, SampleBatch


def test_real_scenes_are_judged_right():
    images, right, wrong = real_scenes()
    judge = Judge()
    assert all(verdict.exact for verdict in judge.judge(images, right))
    assert not any(verdict.exact for verdict in judge.judge(images, wrong))


def test_all_tasks_are_solved_by_real_scenes():
    images, right, _ = real_scenes()
    metric = Compositional()
    batch = SampleBatch(
        [line["prompt"] for line in right], right, torch.zeros(len(right), dtype=torch.int64), torch.arange(len(right))
    )
    metric.update(images[:, None], batch)
    assert {name: float(value) for name, value in metric.compute().items()} == dict.fromkeys(
        ("overall", "overall_exact", "overall_partial", "single_object", "two_object", "counting", "colors",
         "position", "color_attr"), 1.0,
    )  # fmt: skip


def test_nothing_is_seen_in_white_noise_and_blurs():
    generator = torch.Generator().manual_seed(0)
    white = torch.ones(2, 3, 64, 64)
    noise = torch.rand(8, 3, 64, 64, generator=generator)
    smooth = torch.nn.functional.interpolate(torch.rand(8, 3, 5, 5, generator=generator), size=64, mode="bicubic")
    found = Judge().find(torch.cat([white, noise, smooth.clamp(0, 1)]))
    assert sum(map(len, found)) == 0


def test_the_folder_is_small_and_has_a_card():
    folder = assets.path("emoji_judge")
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 4 * 2**20
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in card and "Apache" in card and "fklit fit" in card
