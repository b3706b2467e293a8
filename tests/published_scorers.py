"""How the published scorers of benchmarks find images and prompts: second readings, of their own scripts alone."""

import json
import os
import re


def geneval(imagedir):
    """`evaluation/evaluate_images.py` of djghosh13/geneval: (image, tag, prompt) of every image of every folder."""
    found = []
    for subfolder in sorted(os.listdir(imagedir)):
        folderpath = os.path.join(imagedir, subfolder)
        if not os.path.isdir(folderpath) or not subfolder.isdigit():
            continue
        with open(os.path.join(folderpath, "metadata.jsonl")) as fp:
            metadata = json.load(fp)
        for imagename in sorted(os.listdir(os.path.join(folderpath, "samples"))):
            imagepath = os.path.join(folderpath, "samples", imagename)
            if not os.path.isfile(imagepath) or not re.match(r"\d+\.png", imagename):
                continue
            assert all({"class", "count"} <= item.keys() for item in metadata["include"])
            found.append((imagepath, metadata["tag"], metadata["prompt"]))
    return found


def geneval2(benchmark_data, image_filepath_data):
    """`evaluation.py` and `soft_tifa_analysis.py` of facebookresearch/GenEval2: (image, questions, atoms, skills)."""
    with open(benchmark_data) as file:
        data = [json.loads(line) for line in file.readlines()]
    with open(image_filepath_data) as file:
        images = json.load(file)
    found = []
    for entry in data:
        if entry["prompt"] not in images:
            raise AssertionError(f"Missing filepath for the prompt: {entry['prompt']}")
        found.append((images[entry["prompt"]], entry["vqa_list"], entry["atom_count"], entry["skills"]))
    return found


def evalscope(jsonl):
    """`Text2ImageAdapter` of modelscope/evalscope: subset, and (id, prompt, category, image) of every line."""
    subset = os.path.splitext(os.path.basename(jsonl))[0]
    with open(jsonl, encoding="utf-8") as file:
        records = [json.loads(line.strip()) for line in file if line.strip()]
    return subset, [(r.get("id", ""), r["prompt"], r.get("category", ""), r.get("image_path", "")) for r in records]


def hps(img_path, meta_dir):
    """`evaluate_benchmark` of hpsv2: model, and (image, prompt) of every style; prompts come from the benchmark."""
    found = {}
    for style in os.listdir(img_path):
        with open(os.path.join(meta_dir, f"{style}.json")) as file:
            prompts = json.load(file)
        folder = os.path.join(img_path, style)
        names = [os.path.join(folder, f"{idx:05d}.jpg") for idx in range(len(prompts))]
        found[style] = [pair for pair in zip(names, prompts, strict=True) if os.path.exists(pair[0])]
    return str(img_path).split("/")[-1], found


def hps_drawbench(data_path, root_dir):
    """`evaluate_benchmark_DB` of hpsv2: (image, prompt) of every model."""
    with open(f"{data_path}/drawbench.json") as file:
        prompts = json.load(file)
    return {
        model: [
            (name, prompt)
            for idx, prompt in enumerate(prompts)
            if os.path.exists(name := os.path.join(root_dir, model, f"{idx:05d}.jpg"))
        ]
        for model in os.listdir(root_dir)
    }


def image_reward(prompts_path, img_dir, model):
    """`test-benchmark.py` of THUDM/ImageReward: (prompt, images) of every prompt."""
    with open(prompts_path) as file:
        prompts = json.load(file)
    folder = os.path.join(img_dir, model)
    each = len(os.listdir(folder)) // len(prompts)
    return [(item["prompt"], [os.path.join(folder, f"{item['id']}_{x}.png") for x in range(each)]) for item in prompts]
