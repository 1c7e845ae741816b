"""Wav2Vec2ForSequenceClassification."""

from typing import Any

from torch import nn

from stapes_export.families.family import Family
from stapes_export.surgery.speech import ConvEncoder, Head, SpeechClassifier, Transformer, receptive_field


def adapt(model: Any) -> nn.Module:
    config, base = model.config, model.wav2vec2
    return SpeechClassifier(
        ConvEncoder(base.feature_extractor.conv_layers, config.conv_kernel, config.conv_stride),
        base.feature_projection,
        Transformer(base.encoder, config.do_stable_layer_norm),
        Head(model),
    )


WAV2VEC2 = Family(
    model_type="wav2vec2",
    adapt=adapt,
    min_samples=lambda config: receptive_field(config.conv_kernel, config.conv_stride),
    dynamic_time=True,
)
