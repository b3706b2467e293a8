"""VQAScore on tiny Qwen3-VL and LLaVA folders, against the processor and the model used one image at a time."""

import copy
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_vlm import write_tiny_idefics, write_tiny_llava, write_tiny_qwen

from fklit.rewards import Frames, RewardError, VQAScore
from fklit.rewards.testing import RewardTests

pytestmark = pytest.mark.slow  # the quick tests have HPSv2 and ImageReward

SHAPES = ((40, 56), (16, 16), (24, 50), (90, 30))  # enlarged to the least size, and shrunk to the largest
PROMPTS = ["a red heart", "a cat {left} of a dog"]
QUESTION = 'Does this figure show "{prompt}"? Please answer yes or no.'


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("vlm")
    writers = {"qwen": write_tiny_qwen, "llava": write_tiny_llava, "idefics": write_tiny_idefics}
    return {name: write(base / name) for name, write in writers.items()}


def pictures(shape, count=2, seed=0):
    """Blocky bytes with sharp edges, at which bicubic kernels overshoot."""
    pixels = np.random.default_rng(seed).integers(
        0, 256, (count, *(-(-side // 6) for side in shape), 3), dtype=np.uint8
    )
    return pixels.repeat(6, 1).repeat(6, 2)[:, : shape[0], : shape[1]]


def tensor(pixels):
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def manual(folder, pixels, question, words, dtype=torch.float32):
    """The probability that the reply begins with one of the words: PIL, processor and model, for one image."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype).eval()
    processor = AutoProcessor.from_pretrained(folder)
    content = [{"type": "image", "image": Image.fromarray(pixels)}, {"type": "text", "text": question}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        probabilities = model(**inputs).logits[0, -1].float().softmax(-1)
    vocabulary = processor.tokenizer.get_vocab()
    return sum(float(probabilities[vocabulary[word]]) for word in words)


class TestQwen(RewardTests):
    differentiable = True

    @pytest.fixture(autouse=True)
    def _folder(self, folders):
        self.folder = folders["qwen"]

    def make_reward(self, max_batch=None):
        return VQAScore(str(self.folder), output="log_probability", max_batch=max_batch)


class TestLlava(TestQwen):
    @pytest.fixture(autouse=True)
    def _folder(self, folders):
        self.folder = folders["llava"]


@pytest.mark.parametrize("family", ["qwen", "llava", "idefics"])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_probability_of_yes(folders, family, shape):
    pixels = pictures(shape)
    expected = [
        manual(folders[family], image, QUESTION.replace("{prompt}", prompt), ["Yes", "ĠYes"])
        for image, prompt in zip(pixels, PROMPTS, strict=True)
    ]
    found = VQAScore(str(folders[family]))(tensor(pixels), PROMPTS)
    # Bytes are rounded once more where pictures are resized; random weights make much of it.
    assert torch.allclose(found, torch.tensor(expected), rtol=0.05, atol=1e-7)
    if family == "qwen" and shape == (16, 16):  # not resized: nothing is rounded
        assert torch.allclose(found, torch.tensor(expected), rtol=1e-4)


@pytest.mark.parametrize("family", ["qwen", "llava"])
@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_are_those_of_the_processor(folders, family, shape):
    from transformers import AutoProcessor

    pixels = pictures(shape)
    expected = AutoProcessor.from_pretrained(folders[family]).image_processor(
        [Image.fromarray(image) for image in pixels], return_tensors="pt"
    )["pixel_values"]
    network = VQAScore(str(folders[family])).load().network
    ours = network._inputs(tensor(pixels), PROMPTS)["pixel_values"]
    assert ours.shape == expected.shape
    std = torch.tensor(network._processor.image_processor.image_std).min()
    assert (ours - expected).abs().max() <= 1.01 / 255 / std


def test_gradients_are_those_of_the_model(folders):
    """Along the analytic gradient, the score of the float64 model changes as the gradient says."""
    reward = VQAScore(str(folders["qwen"]), output="log_probability", dtype="float32").double()
    images = (tensor(pictures((40, 56), 1)).double() * 0.8 + 0.1).requires_grad_()
    value = reward(images, PROMPTS[:1]).sum()
    (gradient,) = torch.autograd.grad(value, images)
    step = 1e-3 * gradient / gradient.norm()  # transformers rounds to float32 in places
    with torch.no_grad():
        slope = (reward(images + step, PROMPTS[:1]) - reward(images - step, PROMPTS[:1])).item() / 2e-3
    assert slope == pytest.approx(float(gradient.norm()), rel=1e-2)


def test_a_processor_on_pil_scores_alike_and_refuses_gradients(folders, monkeypatch):
    import transformers

    load = transformers.AutoProcessor.from_pretrained

    def on_pil(name, **options):
        processor = load(name, **options)
        processor.image_processor = transformers.AutoImageProcessor.from_pretrained(name, backend="pil")
        return processor

    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", on_pil)
    reward = VQAScore(str(folders["qwen"])).load()
    monkeypatch.undo()
    images = tensor(pictures((16, 16)))
    assert not reward.differentiable
    assert VQAScore(str(folders["qwen"])).differentiable
    assert torch.allclose(reward(images, PROMPTS), VQAScore(str(folders["qwen"]))(images, PROMPTS), rtol=1e-4)
    with pytest.raises(RewardError, match=r"expected images without gradients, as the .* takes bytes only"):
        reward(images.requires_grad_(), PROMPTS)
    with torch.no_grad():
        reward(images, PROMPTS)
        images[0, 0, 0, 0] = torch.nan
        assert reward(images, PROMPTS).isnan().tolist() == [True, False]


def test_questions_of_different_lengths_do_not_disturb_each_other(folders):
    prompts = ["a", "a very long prompt of many words " * 4]
    images = tensor(pictures((16, 16)))
    for folder in folders.values():
        reward = VQAScore(str(folder))
        alone = [reward(images[i : i + 1], prompts[i : i + 1]) for i in range(2)]
        assert torch.allclose(reward(images, prompts), torch.cat(alone), rtol=1e-4)


def test_answers_template_and_output(folders):
    folder, pixels = folders["qwen"], pictures((16, 16), 1)
    images = tensor(pixels)
    expected = manual(folder, pixels[0], "a cat? yes or no", ["Yes", "ĠYes", "yes", "Ġyes"])
    options = {"template": "{prompt}? yes or no", "answers": ["Yes", "yes"]}
    assert float(VQAScore(str(folder), **options)(images, ["a cat"])) == pytest.approx(expected, rel=1e-4)
    log = VQAScore(str(folder), **options, output="log_probability")
    assert float(log(images, ["a cat"])) == pytest.approx(np.log(expected), rel=1e-4)
    assert log.suggested_scale == 1.0


def test_answers_to_questions_of_ones_own(folders):
    folder, pixels = folders["qwen"], pictures((16, 16), 3)
    reward = VQAScore(str(folder), max_batch=2)
    questions = ["How many?", "Red?", "How many?"]
    answers = [["four", "4"], ["yes"], ["Four"]]
    found = reward.answer_log_probability(tensor(pixels), questions, answers)
    tokens = [["four", "Ġfour", "4"], ["yes", "Ġyes"], ["Four", "ĠFour"]]  # " 4" is two tokens
    expected = [manual(folder, *row) for row in zip(pixels, questions, tokens, strict=True)]
    assert found.exp().tolist() == pytest.approx(expected, rel=1e-4)


def test_an_answer_of_several_tokens_is_refused(folders):
    with pytest.raises(ValueError, match=r"an answer that is one token of .*, got 'Certainly'; choose"):
        VQAScore(str(folders["qwen"]), answers="Certainly").load()


def test_precision_and_gray_images(folders):
    images, folder = tensor(pictures((16, 16))), str(folders["qwen"])
    full = VQAScore(folder)(images, PROMPTS)
    for half in (VQAScore(folder, dtype="bfloat16"), VQAScore(folder).bfloat16()):
        found = half(images, PROMPTS)
        assert half.network.model.dtype == torch.bfloat16
        assert found.dtype == torch.float32
        assert torch.allclose(found.log(), full.log(), atol=0.5)
    gray = images[:, :1]
    reward = VQAScore(folder)
    assert torch.equal(reward(gray, PROMPTS), reward(gray.expand(-1, 3, -1, -1), PROMPTS))


def test_frames_of_videos(folders):
    reward = VQAScore(str(folders["qwen"]))
    videos = tensor(pictures((16, 16), 4)).reshape(2, 2, 3, 16, 16)
    expected = reward(videos.flatten(0, 1), [PROMPTS[0]] * 2 + [PROMPTS[1]] * 2).reshape(2, 2).amin(1)
    assert torch.allclose(Frames(reward, reduce="min")(videos, PROMPTS), expected)


def test_it_can_be_copied(folders):
    reward = VQAScore(str(folders["qwen"])).load()
    images = tensor(pictures((40, 56)))
    for copied in (copy.deepcopy(reward), pickle.loads(pickle.dumps(reward))):
        assert torch.equal(copied(images, PROMPTS), reward(images, PROMPTS))


def test_nan_stays_nan(folders):
    images = tensor(pictures((16, 16)))
    images[0, 0, 0, 0] = torch.nan
    assert VQAScore(str(folders["qwen"]))(images, PROMPTS).isnan().tolist() == [True, False]


def test_a_checkpoint_without_some_weights_is_refused(folders, tmp_path):
    shutil.copytree(folders["qwen"], tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    weights = load_file(path)
    weights.pop(next(name for name in weights if "layers.1.mlp" in name))
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"all weights of .*, got a checkpoint without 1 of them \(.*layers.1.mlp"):
        VQAScore(str(tmp_path / "model")).load()


def test_a_model_that_is_not_there_is_refused_in_one_line(tmp_path):
    with pytest.raises(OSError, match=r"a vision-language model that transformers loads, got '.*nothing'") as caught:
        VQAScore(str(tmp_path / "nothing")).load()
    assert "\n" not in str(caught.value)


def test_a_model_that_does_not_chat_is_refused(folders, tmp_path):
    shutil.copytree(folders["qwen"], tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match=r"a processor with a chat template, got that of .*model"):
        VQAScore(str(tmp_path / "model")).load()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"template": "Is it red?"}, "expected a template with {prompt} in it, got 'Is it red[?]'"),
        ({"answers": []}, "expected at least one word as answers"),
        ({"answers": " "}, "expected at least one word as answers"),
        ({"output": "logit"}, "output='logit' is not known"),
        ({"dtype": "int8"}, "dtype='int8' is not known"),
    ],
)
def test_wrong_arguments_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        VQAScore("model", **options)
