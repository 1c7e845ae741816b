"""The top level of an ONNX file by protobuf's wire format, for tests that read files and run none."""

from stapes.bundle import KEY


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


GRAPH = b"\x08\x0a" + field(7, b"\x00" * 300)
"""ModelProto.ir_version and .graph, of a size that takes two bytes."""


def model_with(manifest: str) -> bytes:
    """A file whose metadata_props hold the manifest."""
    return GRAPH + field(14, field(1, KEY.encode()) + field(2, manifest.encode()))
