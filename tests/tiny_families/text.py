"""Block diffusion over text: LLaDA2 with masks, DiffusionGemma with random tokens."""

from tiny_text_pipelines import tiny_diffusion_gemma, tiny_llada2

from tiny_families.row import Row

ROWS = [
    Row("LLaDA2Pipeline", "LLaDA2", tiny_llada2, "inclusionAI/LLaDA2.1-mini", kind="text", main=True, tokens=True,
        prompts=("the cat", "dog"), shown=("temperature",),
        arguments={"gen_length": 10, "temperature": 0.7, "threshold": 0.8, "eos_early_stop": False}),
    Row("DiffusionGemmaPipeline", "DiffusionGemma", tiny_diffusion_gemma, "google/diffusiongemma-26B-A4B-it",
        kind="text", main=True, tokens=True, prompts=("the cat", "dog"), arguments={"gen_length": 8}),
]  # fmt: skip
