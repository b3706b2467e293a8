"""Z-Image: lists of samples and of embeddings, one a row."""

import tiny_flow

from tiny_families.components import picture, recast
from tiny_families.row import Row

_LARGER = {"height": 32, "width": 32, "guidance_scale": 3.0}

ROWS = [
    Row("ZImagePipeline", "Z-Image", tiny_flow.z_image, "Tongyi-MAI/Z-Image-Turbo", main=True, arguments=_LARGER),
    Row("ZImageImg2ImgPipeline", "Z-Image", lambda: recast("ZImageImg2ImgPipeline", tiny_flow.z_image()),
        "Tongyi-MAI/Z-Image-Turbo", arguments={**_LARGER, "image": picture(32), "strength": 0.8}),
    Row("ZImageInpaintPipeline", "Z-Image", lambda: recast("ZImageInpaintPipeline", tiny_flow.z_image()),
        "Tongyi-MAI/Z-Image-Turbo",
        arguments={**_LARGER, "image": picture(32), "mask_image": (picture(32, seed=4)[:, :1] > 0.5).float(),
                   "strength": 0.8}),
]  # fmt: skip
