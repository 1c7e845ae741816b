"""The architectures that export, one a file."""

from stapes_export.families.audio_spectrogram_transformer import AUDIO_SPECTROGRAM_TRANSFORMER
from stapes_export.families.family import Family
from stapes_export.families.wav2vec2 import WAV2VEC2

__all__ = ["FAMILIES", "Family"]

FAMILIES: tuple[Family, ...] = (AUDIO_SPECTROGRAM_TRANSFORMER, WAV2VEC2)
"""Every family, in the order of its name. A test fails where a file of this folder is not in it."""
