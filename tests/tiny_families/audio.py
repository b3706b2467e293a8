"""Audio: Stable Audio and AudioLDM 2."""

import tiny_audio

from tiny_families.row import Row

ROWS = [
    Row("StableAudioPipeline", "Stable Audio", tiny_audio.stable_audio, "stabilityai/stable-audio-open-1.0", "audio",
        main=True, arguments={"audio_end_in_s": 1.0, "guidance_scale": 3.0}),
    Row("AudioLDM2Pipeline", "AudioLDM 2", tiny_audio.audio_ldm_2, "cvssp/audioldm2", "audio", main=True,
        arguments={"audio_length_in_s": 0.004, "guidance_scale": 3.0}),
]  # fmt: skip
