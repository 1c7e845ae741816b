"""The architectures that export, one a file."""

from stapes_export.families.audio_spectrogram_transformer import AUDIO_SPECTROGRAM_TRANSFORMER
from stapes_export.families.data2vec_audio import DATA2VEC_AUDIO
from stapes_export.families.family import Family
from stapes_export.families.hubert import HUBERT
from stapes_export.families.sew import SEW
from stapes_export.families.sew_d import SEW_D
from stapes_export.families.unispeech import UNISPEECH
from stapes_export.families.unispeech_sat import UNISPEECH_SAT
from stapes_export.families.wav2vec2 import WAV2VEC2
from stapes_export.families.wav2vec2_bert import WAV2VEC2_BERT
from stapes_export.families.wav2vec2_conformer import WAV2VEC2_CONFORMER
from stapes_export.families.wavlm import WAVLM
from stapes_export.families.whisper import WHISPER

__all__ = ["FAMILIES", "Family"]

FAMILIES: tuple[Family, ...] = (
    AUDIO_SPECTROGRAM_TRANSFORMER,
    DATA2VEC_AUDIO,
    HUBERT,
    SEW,
    SEW_D,
    UNISPEECH,
    UNISPEECH_SAT,
    WAV2VEC2,
    WAV2VEC2_BERT,
    WAV2VEC2_CONFORMER,
    WAVLM,
    WHISPER,
)
"""Every family, in the order of its name. A test fails where a file of this folder is not in it."""
