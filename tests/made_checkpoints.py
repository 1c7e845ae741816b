"""Small checkpoints with random weights, from the configs of real architectures: they stand in for the hub.

The weights are large enough that logits differ clearly between inputs; near-uniform answers would prove nothing.
"""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForAudioClassification

SPREAD = 0.2
"""Standard deviation of the random weights."""

SPEECH = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": [16, 16, 16, 16, 16, 16, 24],  # the kernels and strides are the defaults: 400 samples for the first frame
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 16,
}

SQUEEZED = SPEECH | {"conv_dim": [8, 8, 8, 16, 16, 16, 16, 16, 16, 16, 16, 24, 24], "squeeze_factor": 2}

SPECTROGRAM = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_length": 60,
    "num_mel_bins": 48,
}

STACKED = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_depthwise_kernel_size": 5,
    "classifier_proj_size": 16,
}

ENCODER = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 48,
    "num_mel_bins": 80,
    "classifier_proj_size": 16,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "audio-spectrogram-transformer": SPECTROGRAM,
    "data2vec-audio": SPEECH | {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 9},
    "hubert": SPEECH,
    "sew": SQUEEZED,
    "sew-d": SQUEEZED | {"max_position_embeddings": 64, "position_buckets": 16},
    "unispeech": SPEECH,
    "unispeech-sat": SPEECH,
    "wav2vec2": SPEECH,
    "wav2vec2-bert": STACKED,
    "wav2vec2-conformer": SPEECH | {"conv_depthwise_kernel_size": 5},
    "wavlm": SPEECH | {"num_buckets": 32, "max_bucket_distance": 80},
    "whisper": ENCODER,
}

WAVEFORM = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True, "return_attention_mask": False}

EXTRACTORS: dict[str, dict[str, Any]] = {
    "audio-spectrogram-transformer": {"feature_extractor_type": "ASTFeatureExtractor", "max_length": 60, "num_mel_bins": 48},
    "wav2vec2-bert": {"feature_extractor_type": "SeamlessM4TFeatureExtractor", "feature_size": 80, "padding_value": 1},
    "whisper": {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 80},
}


def make(folder: Path, model_type: str, labels: tuple[str, ...] = ("one", "two", "three"), seed: int = 0, **options: Any) -> Path:
    """Write a checkpoint of `model_type` into `folder`, its config changed by `options`; the folder."""
    torch.manual_seed(seed)
    names = dict(enumerate(labels))
    spread = options.pop("spread", SPREAD)
    mask = options.pop("return_attention_mask", None)
    dtype = options.pop("dtype", torch.float32)
    options = CONFIGS[model_type] | {"id2label": names, "label2id": {v: k for k, v in names.items()}} | options
    config = AutoConfig.for_model(model_type, **options)
    model = AutoModelForAudioClassification.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "original0" not in name:  # norms keep their ones, the weight norm its length
                weight.normal_(0, spread)
    model.to(dtype).save_pretrained(folder)
    extractor = EXTRACTORS.get(model_type, WAVEFORM) | {"sampling_rate": 16000}
    if mask is not None:
        extractor["return_attention_mask"] = mask
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    return folder
