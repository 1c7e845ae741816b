"""What a C program needs to embed a model: the model, stapes.h, programs over it with their build files, and vectors that prove the host.

    NAME.onnx (NAME.onnx.data)   stapes.h stapes_ort.h wav.h   stapes-classify.c stapes-check.c Makefile CMakeLists.txt
    README.md   vectors/*.wav   vectors/*.wav.tsv: place, score and label, a line for each label

The C files are those of examples/hosts/c in a checkout, and lie in c_files in a wheel. Neither torch nor onnx takes part.
"""

import re
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from stapes import golden
from stapes.bundle import Manifest, external_data, golden_signal, read_manifest
from stapes.classifier import Classifier, load
from stapes.errors import ExportError
from stapes.formats.text import printable
from stapes_export.targets.directory import replacing

HEADERS = ("stapes.h", "stapes_ort.h", "wav.h")
FILES = (*HEADERS, "stapes-classify.c", "stapes-check.c", "Makefile", "CMakeLists.txt")
README, VECTORS = "README.md", "vectors"
BUILT = ("stapes-classify", "stapes-check", "libonnxruntime.so.1")
"""What make leaves beside them."""

WHEEL, CHECKOUT = Path(__file__).parent / "c_files", Path(__file__).parents[3] / "examples" / "hosts" / "c"


@dataclass(frozen=True)
class Vector:
    """A sound whose scores are computed here and compared there."""

    name: str
    samples: NDArray[np.float32]
    """(n, channels)."""
    subtype: str
    """libsndfile's word for how they are written."""


def package(model: Path, out: Path) -> list[Path]:
    """Write the directory `out` for the model; what lies in it.

    It appears whole or not at all, and replaces nothing but an earlier one. Raises ModelError for the model, ExportError for the rest: a
    host that fails the model's golden test computes no scores for others.
    """
    manifest = read_manifest(model)
    check(out)
    if not manifest.frontend_in_graph or manifest.golden is None:
        raise ExportError(f"{model} is no single file with a golden test, as C hosts need; export its checkpoint with --layout file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this CPU lacks what the model needs shows in the golden test
        classifier = load(model, device="cpu", threads=1, cache=False)
    outcome = golden.check(classifier)
    if not outcome.passed:
        raise ExportError(f"this host cannot say what the scores are: {outcome}; {outcome.remedy}")
    name = re.sub(r"[^\w-]", "-", manifest.name)[:80] + ".onnx"  # make splits names at spaces
    with replacing(out) as part:
        source = WHEEL if WHEEL.is_dir() else CHECKOUT
        for file in FILES:
            shutil.copyfile(source / file, part / file)
        _copy_model(model, part / name)
        (part / VECTORS).mkdir()
        for vector in vectors(manifest):
            _write(vector, part / VECTORS, classifier)
        (part / README).write_text(_readme(manifest, name), encoding="utf-8")
    return sorted(path for path in out.rglob("*") if path.is_file())


def check(out: Path) -> None:
    """Raises ExportError where `out` is something that must not be replaced: only an empty folder or an earlier package may be."""
    if not out.parent.is_dir():
        raise ExportError(f"no folder {out.parent} to write {out.name} into; make it first")
    if not out.exists():
        return
    if not out.is_dir():
        raise ExportError(f"{out} is a file; stapes package writes a directory: name another")
    found = [path.relative_to(out) for path in out.rglob("*")]
    foreign = sorted(
        path.as_posix()
        for path in found
        if path.as_posix() not in {*FILES, *BUILT, README, VECTORS}
        and not (len(path.parts) == 1 and path.suffix in (".onnx", ".data"))
        and not (path.parts[0] == VECTORS and path.suffix in (".wav", ".tsv"))
    )
    if foreign:
        raise ExportError(f"{out} holds {foreign[0]}, which is no part of a package for C; name a new or an empty directory")
    if found and not (out / HEADERS[0]).is_file():
        raise ExportError(f"{out} holds {min(found)} and no stapes.h, so it is no earlier package; name a new or an empty directory")


def vectors(manifest: Manifest) -> Iterator[Vector]:
    """Sounds of every kind that wav.h reads: the golden signal, noise, tones in two channels, and the shortest clip there may be."""
    rate, shortest = manifest.rate, max(1, manifest.frontend.min_samples)
    longer = max(shortest, rate)
    draw = np.random.default_rng(0)
    t = np.arange(longer) / rate
    tones = [0.4 * np.sin(2 * np.pi * hz * t) for hz in (220.0, 330.0)]
    assert manifest.golden is not None
    yield Vector("golden", golden_signal(manifest.golden.seconds, rate)[:, None], "FLOAT")
    yield Vector("noise", draw.uniform(-0.3, 0.3, (longer, 1)).astype(np.float32), "PCM_16")
    yield Vector("tones", np.stack(tones, axis=1).astype(np.float32), "PCM_24")
    yield Vector("shortest", draw.uniform(-0.3, 0.3, (shortest, 1)).astype(np.float32), "PCM_32")


def _write(vector: Vector, folder: Path, classifier: Classifier) -> None:
    """The sound as a file, and the scores that Python gives for that file."""
    path = folder / f"{vector.name}.wav"
    soundfile.write(path, vector.samples, classifier.manifest.rate, subtype=vector.subtype)
    found = sorted(classifier(path, top_k=None), key=lambda prediction: prediction.index)
    lines = [f"{one.index}\t{one.score:.9g}\t{printable(one.label)}\n" for one in found]
    path.with_name(f"{path.name}.tsv").write_text("".join(lines), encoding="utf-8")


def _copy_model(model: Path, into: Path) -> None:
    """The file under another name, and beside it what its weights are in, under the names that the file says."""
    for name in external_data(model):
        if Path(name).name != name or not name.endswith(".data"):
            raise ExportError(
                f"{model} keeps its weights in {name!r:.200}, not in a file NAME.data beside it; export it with --external-data"
            )
        shutil.copyfile(model.parent / name, into.with_name(name))
    shutil.copyfile(model, into)


def _readme(manifest: Manifest, model: str) -> str:
    labels = ", ".join(printable(label) for label in manifest.labels[:20]) + (", …" if len(manifest.labels) > 20 else "")
    needs = f" Its numbers take a CPU with {' or '.join(map(printable, manifest.needs))}." if manifest.needs else ""
    return f"""# {printable(manifest.name)} for C

`{model}` hears {len(manifest.labels)} labels in sound at {manifest.rate} Hz: {labels}.{needs}

    make ORT=DIR check                          DIR: an SDK of ONNX Runtime, or the folder onnxruntime/capi of its Python wheel
    ./stapes-classify {model} clip.wav 3        label, tab, score; a line for each of the 3 best

    cmake -B build -DORT=DIR && cmake --build build && ctest --test-dir build

In a program of your own: `stapes.h`, whose first comment says all there is to know, and `stapes_ort.h` where your ONNX Runtime came without
its header. `stapes-classify.c` is the example. `make check` runs the model's golden test and compares what this host answers for
`vectors/*.wav` with what the exporter's did (`vectors/*.wav.tsv`: the label's place, its score, the label).

Made by stapes {version("stapes")}.
"""
