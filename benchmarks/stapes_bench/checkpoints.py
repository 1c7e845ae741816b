"""Checkpoints of real size without a download: the published configs of base models, with random weights.

    python -m stapes_bench.checkpoints wav2vec2-base -o DIR

Speed depends on shapes alone, but whether a fast answer is still the right one does not, and plain random weights prove nothing: their
activations shrink to a point where every clip has the same answer. So the weights are drawn as trained ones behave:

- every matrix keeps the size of what flows through it: where that shrinks, a GELU is as good as linear and frames cancel out;
- what follows a GELU has rows that sum to zero: the mean that every GELU adds, the same for all clips, else outgrows what differs;
- a layer adds less to a token than the token was: at full size all tokens of a clip become one after some layers, and what rounding
  moves grows from layer to layer;
- the head reads the directions in which clips differ most, as training would turn it: zero mean and a spread of 3 for every label's logit.

`make` refuses to write where the logits of other clips than those, of any length, do not really differ.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioClassification

from stapes.errors import ExportError
from stapes_bench import clips

COMMANDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "_unknown_", "_silence_")

SPREAD = 3.0
"""Standard deviation of a label's logit over clips."""

LEAST_SPREAD = 0.1
"""Of the logits' whole spread, what has to lie between clips."""

DIRECTIONS = 12
"""Principal ones, that the head reads: in the others rounding is louder than what differs."""

FITTED, FIT_S = 24, 4.0
"""Clips that the head is fitted on, and their seconds."""

CHECKED, CHECK_S = 8, (1.0, 10.0)
"""Other clips, which must be told apart."""

BEHIND_GELU = ("conv", "conv2", "fc2", "output_dense")
"""Last part of the name of what reads a GELU: the convolutions of the encoders, and what narrows a layer's inner width again."""

ADDED = ("out_proj", "o_proj", "fc2", "output_dense")
"""Of what a layer adds to its tokens."""

RECTIFIED, MILD = 1.7, 0.3
"""Gain that keeps a size behind a GELU, whose variance is 0.34 of what it gets; gain of what a layer adds."""


@dataclass(frozen=True)
class Published:
    """A base model as its config on the hub describes it."""

    model_type: str
    config: dict[str, Any]
    extractor: dict[str, Any]
    labels: tuple[str, ...] = COMMANDS
    checked: tuple[float, ...] = ()
    """Seconds of the clips that must be told apart, where not CHECK_S."""
    seed: int = field(default=0)


SPEECH = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_bias": False,
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "do_stable_layer_norm": False,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "classifier_proj_size": 256,
}
WAVEFORM = {
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "do_normalize": True,
    "feature_size": 1,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": False,
    "sampling_rate": 16000,
}

PUBLISHED = {
    "wav2vec2-base": Published("wav2vec2", SPEECH, WAVEFORM),
    "hubert-base": Published("hubert", SPEECH | {"feat_proj_layer_norm": True}, WAVEFORM),
    "ast-base": Published(
        "audio-spectrogram-transformer",
        {
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
            "qkv_bias": True,
            "patch_size": 16,
            "frequency_stride": 10,
            "time_stride": 10,
            "max_length": 1024,
            "num_mel_bins": 128,
        },
        {
            "feature_extractor_type": "ASTFeatureExtractor",
            "do_normalize": True,
            "feature_size": 1,
            "max_length": 1024,
            "mean": -4.2677393,
            "std": 4.5689974,
            "num_mel_bins": 128,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": False,
            "sampling_rate": 16000,
        },
        labels=tuple(f"class {index}" for index in range(527)),  # AudioSet's number
        checked=(10.0,),  # of a shorter clip the model hears mostly the padding, the same for all
    ),
    "whisper-base": Published(
        "whisper",
        {
            "d_model": 512,
            "encoder_layers": 6,
            "encoder_attention_heads": 8,
            "encoder_ffn_dim": 2048,
            "decoder_layers": 6,
            "decoder_attention_heads": 8,
            "decoder_ffn_dim": 2048,
            "activation_function": "gelu",
            "num_mel_bins": 80,
            "max_source_positions": 1500,
            "vocab_size": 51865,
            "classifier_proj_size": 256,
        },
        {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "chunk_length": 30,
            "feature_size": 80,
            "hop_length": 160,
            "n_fft": 400,
            "n_samples": 480000,
            "nb_max_frames": 3000,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": False,
            "sampling_rate": 16000,
        },
    ),
}

Logits = NDArray[np.float32]


def make(published: Published, folder: Path) -> dict[float, float]:
    """Write the checkpoint to `folder`, whole or not at all; seconds -> the share of the logits' spread that lies between clips.

    Raises ExportError where clips are not told apart, or `folder` cannot be written.
    """
    model = weighted(published)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as draft:
        path = Path(draft) / folder.name
        path.mkdir()
        (path / "preprocessor_config.json").write_text(json.dumps(published.extractor, indent=1) + "\n")
        extractor = AutoFeatureExtractor.from_pretrained(path)
        fit_head(model, extractor)
        shares = {}
        for seconds in published.checked or CHECK_S:
            heard = [clips.speech(seconds, clips.RATE, FITTED + index) for index in range(CHECKED)]
            shares[seconds] = between_clips(logits(model, extractor, heard))
            if not shares[seconds] >= LEAST_SPREAD:
                raise ExportError(
                    f"the logits of clips of {seconds:g} s differ by {shares[seconds]:.1%} of their spread, less than {LEAST_SPREAD:.0%}; "
                    "such a checkpoint would prove nothing"
                )
        model.save_pretrained(path)
        try:
            path.replace(folder)
        except OSError as error:
            raise ExportError(f"cannot write {folder}: {error.strerror}; give a folder that does not exist yet") from error
    return shares


def weighted(published: Published) -> Any:
    """The model in torch, its weights drawn from the seed."""
    torch.manual_seed(published.seed)
    labels = dict(enumerate(published.labels))
    named = {"id2label": labels, "label2id": {label: index for index, label in labels.items()}}
    model = AutoModelForAudioClassification.from_config(AutoConfig.for_model(published.model_type, **published.config, **named)).eval()
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
                _draw(name, module)
    return model


def _draw(name: str, module: nn.Module) -> None:
    """Weights by what stands before and behind; see the module's docstring."""
    last = name.rsplit(".", 1)[-1]
    weight: Any = module.weight
    fan_in = weight[0].numel()
    drawn = torch.randn(weight.shape)
    gain = 1.0
    if last in BEHIND_GELU:
        drawn -= drawn.mean(dim=tuple(range(1, drawn.ndim)), keepdim=True)
        gain = RECTIFIED
    if last in ADDED:
        gain *= MILD
    drawn *= gain / fan_in**0.5
    if hasattr(module, "parametrizations"):  # the positional convolution: its weight norm holds lengths and directions
        module.weight = drawn
    else:
        weight.copy_(drawn)
    bias: Any = module.bias
    if bias is not None:
        bias.copy_(0.1 * torch.randn(bias.shape))


def fit_head(model: Any, extractor: Any) -> None:
    """The last layer reads the DIRECTIONS in which made clips differ most, mixed anew for every label: mean 0 and spread SPREAD."""
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    seen: list[torch.Tensor] = []
    handle = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    logits(model, extractor, clips.made(FITTED, FIT_S))
    handle.remove()
    states = torch.stack(seen).double()
    away = states - states.mean(dim=0)
    directions = torch.linalg.svd(away, full_matrices=False).Vh[:DIRECTIONS]
    weight = torch.randn(last.out_features, len(directions)).double() @ directions
    weight *= SPREAD / (away @ weight.T).std(dim=0, correction=0).clamp(min=1e-9)[:, None]
    with torch.no_grad():
        last.weight.copy_(weight)
        last.bias.copy_(-(weight @ states.mean(dim=0)))


def logits(model: Any, extractor: Any, heard: list[NDArray[np.float32]]) -> Logits:
    """(clips, labels), one clip at a time."""
    rows = []
    with torch.no_grad():
        for samples in heard:
            rows.append(model(**extractor(samples, sampling_rate=clips.RATE, return_tensors="pt")).logits[0].numpy())
    return np.stack(rows)


def between_clips(found: Logits) -> float:
    """The share of the spread of `found` (clips, labels) that lies between clips: 0 where all have one answer."""
    return float(np.sqrt(np.mean((found - found.mean(axis=0)) ** 2)) / max(float(found.std()), 1e-12))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m stapes_bench.checkpoints", description="A checkpoint of real size, made here.")
    parser.add_argument("name", choices=PUBLISHED, metavar="NAME", help=", ".join(PUBLISHED))
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="the checkpoint's folder, which must not exist")
    options = parser.parse_args()
    try:
        if not options.out.parent.is_dir():
            raise ExportError(f"no folder {options.out.parent} to write {options.out.name} into; make it first")
        shares = make(PUBLISHED[options.name], options.out)
    except ExportError as error:
        print(f"stapes_bench: {error}", file=sys.stderr)
        return 2
    told = ", ".join(f"{share:.0%} at {seconds:g} s" for seconds, share in shares.items())
    print(f"{options.out}: between clips lies of the logits' spread {told}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
