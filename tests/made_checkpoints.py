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
    "conv_dim": [16, 16, 24],
    "conv_kernel": [10, 8, 4],
    "conv_stride": [5, 4, 2],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 16,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "wav2vec2": SPEECH,
    "audio-spectrogram-transformer": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_length": 60,
        "num_mel_bins": 48,
        "patch_size": 16,
        "time_stride": 10,
        "frequency_stride": 10,
    },
}

EXTRACTORS: dict[str, dict[str, Any]] = {
    "wav2vec2": {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True, "return_attention_mask": False},
    "audio-spectrogram-transformer": {"feature_extractor_type": "ASTFeatureExtractor", "max_length": 60, "num_mel_bins": 48},
}


def make(folder: Path, model_type: str, labels: tuple[str, ...] = ("one", "two", "three"), seed: int = 0, **options: Any) -> Path:
    """Write a checkpoint of `model_type` into `folder`, its config changed by `options`; the folder."""
    torch.manual_seed(seed)
    names = dict(enumerate(labels))
    config = AutoConfig.for_model(model_type, **CONFIGS[model_type], id2label=names, label2id={v: k for k, v in names.items()}, **options)
    model = AutoModelForAudioClassification.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "original0" not in name:  # norms keep their ones, the weight norm its length
                weight.normal_(0, SPREAD)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(EXTRACTORS[model_type] | {"sampling_rate": 16000}))
    return folder
