"""Models that no host may run, made from a good one: what each of them has to be told apart by."""

import json
from collections.abc import Callable
from pathlib import Path

import onnx

from stapes.bundle import KEY, SCHEMA

Change = Callable[[onnx.ModelProto], None]


def said(**changes: object) -> Change:
    """The model with other values in its manifest."""

    def change(model: onnx.ModelProto) -> None:
        for entry in model.metadata_props:
            if entry.key == KEY:
                entry.value = json.dumps(json.loads(entry.value) | changes)

    return change


def silent(model: onnx.ModelProto) -> None:
    """The model without a manifest."""
    kept = [entry for entry in model.metadata_props if entry.key != KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)


def torn(model: onnx.ModelProto) -> None:
    """The model with a manifest that breaks off."""
    for entry in model.metadata_props:
        entry.value = entry.value[:-10] if entry.key == KEY else entry.value


def scattered(location: str) -> Change:
    """The model with its weights in a file of that name, which is not made."""

    def change(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) >= 1024:
                tensor.ClearField("raw_data")
                tensor.data_location = onnx.TensorProto.EXTERNAL
                tensor.external_data.add(key="location", value=location)

    return change


CHANGED: dict[str, tuple[Change, str]] = {
    "without a manifest": (silent, "without a stapes manifest"),
    "newer schema": (said(schema=SCHEMA + 1), f"schema {SCHEMA + 1} .* up to {SCHEMA}"),
    "schema as text": (said(schema="1"), "schema"),
    "broken manifest": (torn, "JSON"),
    "no labels": (said(labels=[]), "labels"),
    "fewer labels": (said(labels=["yes", "no"]), "12 scores for 2 labels"),
    "rate 0": (said(rate=0), "rate"),
    "features outside": (said(frontend_in_graph=False), "frontend"),
    "missing weights": (scattered("gone.data"), "gone.data"),
    "weights elsewhere": (scattered("../../../../../../../../etc/passwd"), "passwd"),
}
"""What was done to a good model, and what the error has to say."""

BYTES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "not an ONNX file"),
    "text": (lambda _: b"This is no model.\n" * 100, "not an ONNX file"),
    "zeros": (lambda _: bytes(1000), "not an ONNX file"),
    "endless number": (lambda _: b"\xff" * 100, "not an ONNX file"),
    "half": (lambda good: good[: len(good) // 2], "truncated"),
    "a little short": (lambda good: good[:-100], "truncated"),
    "damaged inside": (lambda good: good[:1000] + b"\xff" * 1000 + good[2000:], "ONNX"),
}
"""The same for its bytes."""


def make(good: Path, name: str, folder: Path) -> tuple[Path, str]:
    """The model of that name in `folder`, and what its error has to say."""
    path = folder / "bad.onnx"
    if name in BYTES:
        change, says = BYTES[name]
        path.write_bytes(change(good.read_bytes()))
    else:
        proto, says = onnx.load(good), CHANGED[name][1]
        CHANGED[name][0](proto)
        path.write_bytes(proto.SerializeToString())
    return path, says


def with_weights_beside(good: Path, folder: Path) -> Path:
    """The same model in `folder`, its weights in model.data beside it."""
    onnx.save(onnx.load(good), folder / "model.onnx", save_as_external_data=True, location="model.data", size_threshold=1024)
    return folder / "model.onnx"
