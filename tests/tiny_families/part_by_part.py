"""Videos made part by part, each part denoised after those before: refused before any network is used."""

from collections.abc import Callable
from typing import Any

from tiny_families.components import assemble, euler
from tiny_families.row import Row


def _bare(name: str) -> Callable[[], Any]:
    return lambda: assemble(name, scheduler=euler())


ROWS = [
    Row("HeliosPipeline", "Helios", _bare("HeliosPipeline"), "BestWishYsh/Helios-Base", "video", main=True),
    Row("HeliosPyramidPipeline", "Helios", _bare("HeliosPyramidPipeline"), "BestWishYsh/Helios-Mid", "video"),
    Row("HunyuanVideoFramepackPipeline", "HunyuanVideo", _bare("HunyuanVideoFramepackPipeline"),
        "lllyasviel/FramePackI2V_HY", "video"),
    Row("AnyFlowFARPipeline", "AnyFlow", _bare("AnyFlowFARPipeline"), "nvidia/AnyFlow-FAR-Wan2.1-14B-Diffusers",
        "video"),
    Row("WanAnimatePipeline", "Wan", _bare("WanAnimatePipeline"), "Wan-AI/Wan2.2-Animate-14B-Diffusers", "video"),
    Row("SkyReelsV2DiffusionForcingVideoToVideoPipeline", "SkyReels V2",
        _bare("SkyReelsV2DiffusionForcingVideoToVideoPipeline"), "Skywork/SkyReels-V2-DF-1.3B-540P-Diffusers",
        "video"),
]  # fmt: skip
