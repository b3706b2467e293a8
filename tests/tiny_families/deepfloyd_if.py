"""DeepFloyd IF: pixels, a learned variance, and super-resolution."""

import tiny_pipelines

from tiny_families.components import picture
from tiny_families.row import Row

ROWS = [
    Row("IFPipeline", "DeepFloyd IF", tiny_pipelines.tiny_if, "DeepFloyd/IF-I-XL-v1.0", main=True,
        output="np", arguments={"height": 16, "width": 16,
                   "guidance_scale": 3.0}),
    Row("IFSuperResolutionPipeline", "DeepFloyd IF", tiny_pipelines.tiny_if_super_resolution,
        "DeepFloyd/IF-II-L-v1.0", per_sample=("image",),
        output="np", arguments={"image": picture(rows=2) * 2 - 1, "noise_level": 250, "height": 16, "width": 16,
                   "guidance_scale": 3.0}),
]  # fmt: skip
