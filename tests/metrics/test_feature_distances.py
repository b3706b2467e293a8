"""FID and KID: against closed forms and sums over pairs, from folders and data modules, with too few samples."""

import pickle

import numpy as np
import pytest
import scipy.linalg
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch.utils.data import DataLoader

from fklit.metrics import CLIPFID, CLIPKID, CLIPFeatures, SampleBatch

IMAGES = torch.rand(24, 3, 20, 20, generator=torch.Generator().manual_seed(0))
REAL = (0.5 * torch.rand(20, 3, 24, 24, generator=torch.Generator().manual_seed(1)) + 0.3).mul(255).byte()


class Real(LightningDataModule):
    """Batches of images in one of the forms that data modules have."""

    def __init__(self, form="image", images=None):
        super().__init__()
        self.form, self.images, self.stages = form, REAL.float() / 255 if images is None else images, []

    def setup(self, stage):
        self.stages.append(stage)

    def train_dataloader(self):
        def join(rows):
            images = torch.stack(rows)
            return {"tensor": images, "tuple": (images, 0)}.get(self.form, {self.form: images})

        return DataLoader(self.images, batch_size=3, shuffle=True, collate_fn=join)

    test_dataloader = train_dataloader


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    (folder / "below").mkdir()
    for number, image in enumerate(REAL):
        place = folder / "below" if number % 2 else folder
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(place / f"{number:03d}.png")
    (folder / "notes.txt").write_text("no image")
    return str(folder)


def batch(rows):
    count = len(rows)
    return SampleBatch(
        ["a cat"] * count, [{}] * count, torch.zeros(count, dtype=torch.int64), torch.tensor(rows, dtype=torch.int64)
    )


def fed(metric, *parts):
    for rows in parts:
        metric.update(IMAGES[rows][:, None], batch(rows))
    return metric


def gaussian(dim, seed):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return torch.randn(400, dim, generator=generator, dtype=torch.float64) @ root + seed


def test_fid_is_the_formula_in_float64(clip_folder):
    metric = CLIPFID(str(clip_folder), real="unused")
    x, y = gaussian(5, 1), gaussian(5, 2)
    means = x.mean(0) - y.mean(0)
    first, second = np.cov(x.numpy(), rowvar=False), np.cov(y.numpy(), rowvar=False)
    cross = scipy.linalg.sqrtm(first @ second).real
    expected = float(means @ means) + np.trace(first + second - 2 * cross)
    assert float(metric.distance(x, y)) == pytest.approx(expected, rel=1e-8)


def test_fid_of_known_gaussians(clip_folder):
    """A shift by v gives |v|^2; a factor a gives (1 - a)^2 (|m|^2 + tr C)."""
    metric = CLIPFID(str(clip_folder), real="unused")
    x = gaussian(4, 3)
    shift = torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
    assert float(metric.distance(x, x + shift)) == pytest.approx(5.25, rel=1e-6)
    own = float(x.mean(0).square().sum() + torch.cov(x.T).trace())
    assert float(metric.distance(x, 3 * x)) == pytest.approx(4 * own, rel=1e-6)
    assert float(metric.distance(x, x)) == pytest.approx(0, abs=1e-6)


def test_kid_is_the_sum_over_pairs(clip_folder):
    metric = CLIPKID(str(clip_folder), real="unused")
    x, y = gaussian(3, 1)[:6], gaussian(3, 2)[:9]

    def kernel(a, b):
        return float((a @ b / 3 + 1) ** 3)

    def within(points):
        pairs = [kernel(a, b) for i, a in enumerate(points) for j, b in enumerate(points) if i != j]
        return sum(pairs) / len(pairs)

    between = sum(kernel(a, b) for a in x for b in y) / 54
    assert float(metric.distance(x, y)) == pytest.approx(within(x) + within(y) - 2 * between, rel=1e-10)


def test_kid_with_all_samples_is_torchmetrics_with_one_whole_subset(clip_folder):
    from torchmetrics.image.kid import poly_mmd

    x, y = gaussian(4, 1)[:50], gaussian(4, 2)[:50]
    metric = CLIPKID(str(clip_folder), real="unused")
    assert float(metric.distance(x, y)) == pytest.approx(float(poly_mmd(x, y)), rel=1e-9)


@pytest.mark.parametrize("kind", [CLIPFID, CLIPKID])
def test_folders_and_data_modules_in_any_split_give_the_same(kind, clip_folder, folder):
    embed = CLIPFeatures(str(clip_folder), max_batch=5)
    direct = kind(str(clip_folder), real="unused").distance(embed(IMAGES).double(), embed(REAL.float() / 255).double())
    whole = fed(kind(str(clip_folder), real=folder), [*range(24)])
    assert float(whole.compute()) == pytest.approx(float(direct), rel=1e-4)
    split = fed(kind(str(clip_folder), real=folder, max_batch=3), [5, 6, 7], [], [*range(6)])
    split = fed(pickle.loads(pickle.dumps(split)), [*range(8, 24)])
    assert float(split.compute()) == pytest.approx(float(direct), rel=1e-4)
    split.reset()
    assert float(fed(split, [*range(24)]).compute()) == pytest.approx(float(direct), rel=1e-4)
    for form in ("image", "images", "pixel_values", "tensor", "tuple"):
        metric = kind(str(clip_folder), real=Real(form), real_split="test" if form == "tuple" else "train")
        assert float(fed(metric, [*range(24)]).compute()) == pytest.approx(float(direct), rel=1e-4)
        assert metric.real.stages == ["test" if form == "tuple" else "fit"]


def test_only_so_many_real_images(clip_folder, folder):
    for real in (folder, Real()):
        metric = fed(CLIPKID(str(clip_folder), real=real, num_real=17), [*range(24)])
        assert len(metric.real_features[0]) == 17


def test_too_few_are_refused(clip_folder, folder):
    metric = CLIPFID(str(clip_folder), real=folder)  # embeddings of 16 dimensions
    with pytest.raises(ValueError, match="expected at least 17 samples for fid, one a prompt, got 16; give more"):
        metric.check_run("fid", num_prompts=16, num_particles=4)
    metric.check_run("fid", num_prompts=17, num_particles=1)
    with pytest.raises(ValueError, match="expected at least 17 samples for CLIPFID, got 5; sample more prompts"):
        fed(metric, [*range(5)]).compute()
    few = fed(CLIPKID(str(clip_folder), real=folder, num_real=3), [*range(20)])
    with pytest.raises(ValueError, match=r"at least 16 samples for CLIPKID \(real images\), got 3; give more of them"):
        few.compute()
    allowed = fed(CLIPFID(str(clip_folder), real=folder, min_samples=3), [*range(5)])
    assert float(allowed.compute()) > 0
    with pytest.raises(ValueError, match="min_samples=1 is too small"):
        CLIPFID(str(clip_folder), real=folder, min_samples=1)
    with pytest.raises(ValueError, match="real_split='all' is not known"):
        CLIPFID(str(clip_folder), real=folder, real_split="all")


def test_real_images_that_are_none_are_refused(clip_folder, tmp_path):
    with pytest.raises(ValueError, match=r"expected a folder of real images \(bmp, jpg, png, webp\), got none in"):
        CLIPKID(str(clip_folder), real=str(tmp_path)).load()
    with pytest.raises(ValueError, match=r"expected batches of Real with float images .*, got \['x'\]; give a folder"):
        CLIPKID(str(clip_folder), real=Real("x")).load()
    with pytest.raises(ValueError, match=r"CLIPScore expected images in \[0, 1\], got values from"):
        CLIPKID(str(clip_folder), real=Real(images=REAL.float())).load()
