"""The C host: stapes.h and its programs, built here and run on the vectors that every host shares, and on what strangers may send."""

import json
import random
import re
import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
import tiny_models
from c_build import compiled, make, need, run, wheel_library
from hosts.conftest import NATIVE, Expected
from onnx import TensorProto, helper
from tiny_models import MANIFEST, tiny, told

from stapes.bundle import Golden, read_manifest

C11 = ("-std=c11",)
SANITIZE = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")

OK, BAD_ARGUMENT, NO_MEMORY, OLD_RUNTIME, NO_FILE, BAD_MODEL, NO_MANIFEST, NEWER_SCHEMA = range(8)
WRONG_RATE, TOO_SHORT, TOO_LONG, NOT_FINITE, GOLDEN_FAILED = range(8, 13)


@dataclass(frozen=True)
class Host:
    """The built programs."""

    folder: Path

    def classify(self, *arguments: str | Path):
        return run([self.folder / "stapes-classify", *arguments])

    def probe(self, *arguments: str | Path, cwd: Path | None = None) -> list[list[str]]:
        """The lines of a probe that ended well and said nothing else, split at tabs."""
        done = run([self.folder / "probe", *arguments], cwd=cwd)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout[-2000:] + done.stderr[-4000:]
        return [line.split("\t") for line in done.stdout.splitlines()]

    def scores(self, model: Path, wave: Path, kind: str = "float", place: str = "path", channels: int = 1, offset: int = 0):
        lines = self.probe("scores", model, wave, kind, place, str(channels), str(offset))
        return {label: float(score) for label, score in lines}


def built(root: Path, folder: Path, *flags: str, settings: Sequence[str] = ()) -> Host:
    need("cc", "make")
    source = root / "examples" / "hosts" / "c"
    done = make(source, folder, *settings)
    assert done.returncode == 0, done.stderr
    compiled(root / "tests" / "hosts" / "probe.c", folder / "probe", source, ["cc", *C11], *flags)
    return Host(folder)


@pytest.fixture(scope="module")
def host(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Host:
    return built(root, tmp_path_factory.mktemp("c"), "-O2")


@pytest.fixture(scope="module")
def checked(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """The same programs under AddressSanitizer, with its search for leaks, and UndefinedBehaviorSanitizer."""
    return built(root, tmp_path_factory.mktemp("sanitized"), *SANITIZE, settings=["SAN=1"])


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    return tiny_models.write(tmp_path / "tiny.onnx", tiny())


def noise(samples: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(5).uniform(-0.5, 0.5, (samples, channels)).astype(np.float32)


# The build

COMPILERS = {"gcc": ["gcc", "-std=c11"], "clang": ["clang", "-std=c11"], "g++": ["g++", "-std=c++11", "-x", "c++"]}
COMPILERS["clang++"] = ["clang++", "-std=c++17", "-x", "c++"]


@pytest.mark.parametrize("compiler", [name for name in COMPILERS if name == "gcc" or shutil.which(name)])
def test_every_compiler_here_takes_it_without_a_warning(compiler: str, root: Path, tmp_path: Path, tiny_model: Path):
    need(COMPILERS[compiler][0])
    program = compiled(root / "tests/hosts/probe.c", tmp_path / "probe", root / "examples/hosts/c", COMPILERS[compiler], "-O2")
    assert run([program, "verify", tiny_model]).stdout.split("\t")[2] == "0"


def test_a_header_in_an_sdk_is_used(root: Path, tmp_path: Path):
    need("cc", "make")
    sdk = tmp_path / "sdk"
    (sdk / "include").mkdir(parents=True)
    (sdk / "lib").mkdir()
    (sdk / "lib" / "libonnxruntime.so").symlink_to(next(wheel_library().glob("libonnxruntime.so.*")))
    (sdk / "include" / "onnxruntime_c_api.h").write_text("#error the SDK's own header\n")
    done = run(["make", "-C", root / "examples" / "hosts" / "c", f"ORT={sdk}", f"OUT={tmp_path / 'out'}"])
    assert done.returncode != 0
    assert "the SDK's own header" in done.stderr


def test_a_folder_without_the_library_is_named(root: Path, tmp_path: Path):
    need("cc", "make")
    done = run(["make", "-C", root / "examples" / "hosts" / "c", f"ORT={tmp_path}", f"OUT={tmp_path / 'out'}"])
    assert done.returncode != 0
    assert f"no libonnxruntime.so in ORT={tmp_path}" in done.stderr


def test_one_program_may_include_it_in_many_files(root: Path, tmp_path: Path, host: Host):
    (tmp_path / "one.c").write_text('#define STAPES_IMPLEMENTATION\n#include "stapes.h"\n#include "stapes.h"\n')
    (tmp_path / "two.c").write_text('#include "stapes.h"\nint main(void) { stapes_free(NULL); return 0; }\n')
    sources = [tmp_path / "one.c", tmp_path / "two.c", host.folder / "libonnxruntime.so.1"]
    done = run(["cc", *C11, f"-I{root / 'examples/hosts/c'}", *sources, f"-Wl,-rpath,{host.folder}", "-lm", "-o", tmp_path / "program"])
    assert done.returncode == 0, done.stderr
    assert run([tmp_path / "program"]).returncode == 0


OLD_RUNTIME_LIBRARY = """
#include "stapes_ort.h"
static const OrtApi *get(uint32_t version) { return version > 13 ? NULL : (const OrtApi *)""; }
static const char *version(void) { return "1.13.1"; }
static const OrtApiBase base = {get, version};
const OrtApiBase *OrtGetApiBase(void) { return &base; }
"""


def test_an_onnx_runtime_that_is_too_old_is_an_error(root: Path, tmp_path: Path, tiny_model: Path):
    need("cc")
    source = root / "examples" / "hosts" / "c"
    (tmp_path / "old.c").write_text(OLD_RUNTIME_LIBRARY)
    done = run(["cc", *C11, f"-I{source}", source / "stapes-classify.c", tmp_path / "old.c", "-lm", "-o", tmp_path / "program"])
    assert done.returncode == 0, done.stderr
    done = run([tmp_path / "program", tiny_model, "x.wav"])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "stapes-classify: ONNX Runtime 1.13.1 is too old; stapes.h needs 1.14 or later\n"


# The vectors


def test_the_scores_of_the_fp32_model_are_pythons(host: Host, fp32_model: Path, waves: list[Path], expected: Expected):
    for wave in waves:
        found, wanted = host.scores(fp32_model, wave), expected(fp32_model, wave)
        assert found.keys() == wanted.keys()
        assert max(abs(found[label] - wanted[label]) for label in wanted) <= NATIVE
        assert next(iter(found)) == next(iter(wanted))


def test_the_scores_of_the_int8_model_are_within_its_tolerance(host: Host, int8_model: Path, waves: list[Path], expected: Expected):
    golden = read_manifest(int8_model).golden
    assert golden is not None
    for wave in waves:
        found, wanted = host.scores(int8_model, wave), expected(int8_model, wave)
        assert next(iter(found)) == next(iter(wanted))
        assert max(abs(found[label] - wanted[label]) for label in wanted) <= golden.tolerance


def test_the_program_prints_label_and_score(host: Host, fp32_model: Path, waves: list[Path], expected: Expected):
    done = host.classify(fp32_model, waves[0], "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"(\S+\t[01]\.\d{6}\n){3}", done.stdout)
    wanted = list(expected(fp32_model, waves[0]).items())[:3]
    for line, (label, score) in zip(done.stdout.splitlines(), wanted, strict=True):
        assert line.split("\t")[0] == label
        assert float(line.split("\t")[1]) == pytest.approx(score, abs=NATIVE)
    assert len(host.classify(fp32_model, waves[0]).stdout.splitlines()) == 5
    assert len(host.classify(fp32_model, waves[0], "4000000000").stdout.splitlines()) == 12


@pytest.mark.parametrize(
    ("kind", "place", "channels", "offset"),
    [("int16", "path", 1, 0), ("float", "memory", 1, 0), ("float", "path", 2, 0), ("int16", "memory", 2, 1), ("float", "path", 1, 3)],
)
def test_every_way_to_give_a_sound_gives_the_same(
    kind: str, place: str, channels: int, offset: int, host: Host, int8_model: Path, waves: list[Path]
):
    plain = host.scores(int8_model, waves[0])
    other = host.scores(int8_model, waves[0], kind, place, channels, offset)
    assert max(abs(plain[label] - other[label]) for label in plain) <= NATIVE  # left and right differ: their mean rounds anew


WAVES = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "PCM_32"),
    ("WAV", "FLOAT"),
    ("WAVEX", "PCM_16"),
    ("WAVEX", "PCM_24"),
    ("WAVEX", "FLOAT"),
]


@pytest.mark.parametrize(("container", "subtype"), WAVES)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_kind_of_wav_is_the_same_sound(
    container: str, subtype: str, channels: int, host: Host, int8_model: Path, waves: list[Path], tmp_path: Path
):
    samples, rate = soundfile.read(waves[0], dtype="float32")  # of 16 bits, so that none of these kinds loses any
    wide = np.repeat(samples[:, None], channels, axis=1)
    soundfile.write(tmp_path / "clip.wav", wide, rate, subtype=subtype, format=container)
    assert host.classify(int8_model, tmp_path / "clip.wav").stdout == host.classify(int8_model, waves[0]).stdout


def test_eight_threads_share_a_model(host: Host, checked: Host, int8_model: Path, waves: list[Path]):
    assert host.probe("threads", int8_model, "8", "10", *waves[:3]) == [["240 answers, 0 wrong"]]
    assert checked.probe("threads", int8_model, "8", "2", *waves[:2]) == [["32 answers, 0 wrong"]]


def test_the_model_tells_what_it_is(host: Host, int8_model: Path):
    manifest = read_manifest(int8_model)
    assert manifest.golden is not None
    lines = [line for (line,) in host.probe("about", int8_model)]
    assert lines[:3] == [manifest.name, str(manifest.rate), str(manifest.frontend.min_samples)]
    assert float(lines[3]) == pytest.approx(manifest.golden.tolerance)
    assert tuple(lines[4:]) == manifest.labels


def test_labels_come_in_every_script(checked: Host, tmp_path: Path):
    labels = ('d\u00e9j\u00e0\t"\\/', "\u732b", "\U0001f431 \u0000"[:2])
    for ascii_only in (True, False):
        text = json.dumps(json.loads(told(labels=labels).to_json()), ensure_ascii=ascii_only)
        tiny_models.write(tmp_path / "m.onnx", tiny(text))
        lines = checked.probe("about", tmp_path / "m.onnx")
        assert ["\t".join(line) for line in lines[4:]] == list(labels)


# The golden test


def test_the_golden_signal_is_pythons(checked: Host, tiny_model: Path):
    # mean, largest and smallest sample of the signal, as NumPy makes it
    ((difference, tolerance, code, _),) = checked.probe("verify", tiny_model)
    assert float(difference) <= 1e-7  # a float32
    assert (float(tolerance), code) == (1e-5, str(OK))


@pytest.mark.parametrize("model", ["fp32_model", "int8_model"])
def test_the_golden_test_passes(model: str, host: Host, request: pytest.FixtureRequest):
    ((difference, tolerance, code, text),) = host.probe("verify", request.getfixturevalue(model))
    assert (code, text) == (str(OK), "")
    assert 0 <= float(difference) <= float(tolerance)


def test_a_failed_golden_test_says_by_how_much(checked: Host, tmp_path: Path):
    golden = MANIFEST.golden
    assert golden is not None
    wrong = Golden(golden.seconds, (golden.logits[0] + 0.25, *golden.logits[1:]), golden.tolerance)
    tiny_models.write(tmp_path / "m.onnx", tiny(told(golden=wrong, needs=("vnni",))))
    ((difference, _, code, text),) = checked.probe("verify", tmp_path / "m.onnx")
    assert float(difference) == pytest.approx(0.25, abs=1e-6)
    assert code == str(GOLDEN_FAILED)
    assert "off by 0.25" in text
    assert "a CPU without vnni" in text


def test_logits_that_are_no_numbers_fail_the_golden_test(checked: Host, tmp_path: Path):
    nan = [helper.make_node("Sqrt", ["smallest"], ["nan"]), helper.make_node("Softmax", ["nan"], ["scores"])]
    model = tiny(scores=nan)
    model.graph.node[4].output[0], model.graph.node[5].output[0] = "plain", "logits"
    model.graph.node[6].input[0] = "plain"
    model.graph.node[5].input[0] = "plain"
    tiny_models.write(tmp_path / "m.onnx", model)
    ((difference, _, code, text),) = checked.probe("verify", tmp_path / "m.onnx")
    assert (difference.lstrip("-"), code) == ("nan", str(GOLDEN_FAILED))
    assert "nan" in text


@pytest.mark.parametrize(
    ("golden", "text"),
    [(None, "has no golden test"), (Golden(1e9, (0, 0, 0), 1), "golden test of 1e+09 s"), (Golden(0.001, (0, 0, 0), 1), "makes no sense")],
)
def test_a_model_that_cannot_be_tested_says_so(golden: Golden | None, text: str, checked: Host, tmp_path: Path):
    tiny_models.write(tmp_path / "m.onnx", tiny(told(golden=golden)))
    ((_, _, code, said),) = checked.probe("verify", tmp_path / "m.onnx")
    assert code == str(BAD_MODEL)
    assert text in said


# Wrong calls

ARGUMENTS = {
    "good": (OK, ""),
    "huge room": (OK, ""),
    "no room": (BAD_ARGUMENT, "room for 0 predictions"),
    "no model": (BAD_ARGUMENT, "needs a model"),
    "no sound": (BAD_ARGUMENT, "a sound"),
    "no top": (BAD_ARGUMENT, "places for what is found"),
    "no found": (BAD_ARGUMENT, "places for what is found"),
    "no samples": (BAD_ARGUMENT, "samples are NULL"),
    "no channels": (BAD_ARGUMENT, "0 channels"),
    "negative channels": (BAD_ARGUMENT, "-1 channels"),
    "nine channels": (BAD_ARGUMENT, "9 channels"),
    "no format": (BAD_ARGUMENT, "format is STAPES_FLOAT or STAPES_INT16, not 7"),
    "wrong rate": (WRONG_RATE, "has 8000 samples a second and tiny takes 16000: resample it, or export the model with --input-rate"),
    "no rate": (WRONG_RATE, "has 0 samples a second"),
    "zero samples": (TOO_SHORT, "has 0 samples"),
    "nothing at all": (TOO_SHORT, "has 0 samples"),
    "too short": (TOO_SHORT, "has 399 samples (24.9 ms) and tiny needs 400 (25.0 ms) at 16000 Hz"),
    "just long enough": (OK, ""),
    "2^31 samples": (TOO_LONG, "has 2147483648 samples, more than the 67108864 of one call"),
    "all of memory": (TOO_LONG, "more than the 67108864"),
    "NaN": (NOT_FINITE, "sample 5 of the sound is NaN or infinite"),
    "infinity": (NOT_FINITE, "sample 5 of the sound is NaN or infinite"),
    "infinities of both signs": (NOT_FINITE, "sample 2 of the sound is NaN or infinite"),
    "load no path": (BAD_ARGUMENT, "needs a path"),
    "load to nowhere": (BAD_ARGUMENT, "a place for the model"),
    "load negative threads": (BAD_ARGUMENT, "not -1"),
    "load many threads": (BAD_ARGUMENT, "not 100000"),
    "load wrong level": (BAD_ARGUMENT, "log_level is a number from 0 to 4, not 5"),
    "load no bytes": (BAD_ARGUMENT, "needs a model's bytes"),
    "load zero bytes": (BAD_MODEL, "cannot load the model in memory"),
    "verify nothing": (BAD_ARGUMENT, "needs a model"),
}


def test_every_wrong_call_is_an_error_that_says_which(checked: Host, tiny_model: Path):
    lines = checked.probe("arguments", tiny_model)
    assert [what for what, *_ in lines] == list(ARGUMENTS)
    for what, code, text in lines:
        assert int(code) == ARGUMENTS[what][0], what
        assert ARGUMENTS[what][1] in text
        assert bool(text) == (int(code) != OK)


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        ([], 2, "usage: stapes-classify MODEL WAV [K]"),
        (["MODEL"], 2, "usage"),
        (["MODEL", "WAV", "0"], 2, "from 1 up"),
        (["MODEL", "WAV", "-1"], 2, "from 1 up"),
        (["MODEL", "WAV", "many"], 2, "from 1 up"),
        (["MODEL", "WAV", "3x"], 2, "from 1 up"),
        (["MODEL", "WAV", "3", "4"], 2, "usage"),
        (["gone.onnx", "WAV"], 2, "no model at gone.onnx"),
        (["WAV", "WAV"], 2, "cannot load"),
        ([".", "WAV"], 2, ". is no regular file"),
        (["MODEL", "gone.wav"], 1, "gone.wav: it cannot be opened"),
        (["MODEL", "MODEL"], 1, "it is no WAV file"),
        (["MODEL", "."], 1, "cannot use ."),
        (["MODEL", "SLOW"], 1, "has 8000 samples a second and tiny takes 16000"),
        (["MODEL", "SHORT"], 1, "needs 400"),
        (["MODEL", "NAN"], 1, "NaN"),
        (["MODEL", "EMPTY"], 1, "has 0 samples"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else None,
)
def test_the_program_tells_what_is_wrong(arguments: list[str], status: int, text: str, checked: Host, tiny_model: Path, tmp_path: Path):
    sounds = {"WAV": noise(8000), "SLOW": noise(8000), "SHORT": noise(100), "EMPTY": noise(0), "NAN": np.full((8000, 1), np.nan)}
    for name, samples in sounds.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 8000 if name == "SLOW" else 16000, subtype="FLOAT")
    paths = {"MODEL": tiny_model} | {name: tmp_path / f"{name}.wav" for name in sounds}
    done = checked.classify(*[paths.get(word, word) for word in arguments])
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.count("\n") == 1
    assert text in done.stderr


def test_no_label_reaches_the_terminal_as_a_command(checked: Host, tmp_path: Path):
    soundfile.write(tmp_path / "clip.wav", noise(8000), 16000)
    tiny_models.write(tmp_path / "m.onnx", tiny(told(labels=("\x1b[2Jyes", "a\nb\t\x7f", "\x9b31m\u00e9"))))
    done = checked.classify(tmp_path / "m.onnx", tmp_path / "clip.wav")
    assert done.returncode == 0
    assert sorted(line.split("\t")[0] for line in done.stdout.splitlines()) == sorted(["?[2Jyes", "a?b??", "?31m\u00e9"])


def test_no_path_reaches_the_terminal_as_a_command(checked: Host):
    done = checked.classify("\x1b[2J\n.onnx", "x.wav")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "\x1b" not in done.stderr


# Models of strangers


def errors(host: Host, folder: Path, models: dict[str, bytes]) -> dict[str, list[tuple[int, str]]]:
    """name -> code and text of loading the bytes from a file, then from memory; what loads is run and verified."""
    for name, content in models.items():
        (folder / name).write_bytes(content)
    found: dict[str, list[tuple[int, str]]] = {}
    for name, code, text in host.probe("load", *models, cwd=folder):
        found.setdefault(name, []).append((int(code), text))
    assert found.keys() == models.keys()
    return found


def test_a_truncated_model_is_an_error_at_every_length(checked: Host, tmp_path: Path):
    whole = tiny().SerializeToString()
    found = errors(checked, tmp_path, {str(size): whole[:size] for size in range(len(whole))})
    assert {code for each in found.values() for code, _ in each} == {BAD_MODEL, NO_MANIFEST}
    assert all(text for each in found.values() for _, text in each)


def test_a_truncated_model_of_a_real_size_is_an_error(checked: Host, int8_model: Path, tmp_path: Path):
    whole = int8_model.read_bytes()
    sizes = [len(whole) * part // 20 for part in range(20)] + [len(whole) - 1, len(whole) - 100]
    found = errors(checked, tmp_path, {str(size): whole[:size] for size in sizes})
    assert all(code in (BAD_MODEL, NO_MANIFEST) for each in found.values() for code, _ in each)


def test_flipped_bits_in_a_model_are_an_error_or_another_model(checked: Host, tmp_path: Path):
    whole = tiny().SerializeToString()
    draw = random.Random(7)
    models = {}
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        models[str(place)] = bytes(flipped)
    found = errors(checked, tmp_path, models)  # neither a crash nor a word of a sanitizer, or probe() fails
    for each in found.values():
        assert all(bool(text) == (code != OK) and "\n" not in text for code, text in each)


def text_of(**changes: Any) -> str:
    return json.dumps(json.loads(MANIFEST.to_json()) | changes)


def without(key: str) -> str:
    data = json.loads(MANIFEST.to_json())
    del data[key]
    return json.dumps(data)


GOLDEN = json.loads(MANIFEST.to_json())["golden"]
FRONTEND = json.loads(MANIFEST.to_json())["frontend"]
MANIFESTS: dict[str, tuple[str, int, str]] = {
    "empty": ("", BAD_MODEL, "no object"),
    "no JSON": ("{'name': 1}", BAD_MODEL, "no string"),
    "a list": ("[]", BAD_MODEL, "no object"),
    "open": ('{"schema": 1', BAD_MODEL, "no comma"),
    "something behind": (text_of() + "x", BAD_MODEL, "something behind its end"),
    "comma at the end": (text_of()[:-1] + ",}", BAD_MODEL, "no string"),
    "no schema": (without("schema"), BAD_MODEL, "no schema number"),
    "schema 0": (text_of(schema=0), BAD_MODEL, "no schema number"),
    "schema as text": (text_of(schema="1"), BAD_MODEL, "no number"),
    "newer": (text_of(schema=2), NEWER_SCHEMA, "has manifest schema 2 and this stapes.h reads up to 1"),
    "newer and otherwise different": ('{"schema": 2.0, "labels": {"0": null}}', NEWER_SCHEMA, "schema 2"),
    "much newer": ('{"schema": 1' + "0" * 200 + "}", NEWER_SCHEMA, "take a newer stapes.h"),
    "a number too large": ('{"schema": 1' + "0" * 400 + "}", BAD_MODEL, "a number too large"),
    "two schemas": (text_of()[:-1] + ',"schema":1}', BAD_MODEL, "comes twice"),
    "two lists of labels": (text_of()[:-1] + ',"labels":["a","b","c"]}', BAD_MODEL, "comes twice"),
    "two golden tests": (text_of()[:-1] + ',"golden":null}', BAD_MODEL, "comes twice"),
    "no labels": (text_of(labels=[]), BAD_MODEL, "no labels"),
    "labels missing": (without("labels"), BAD_MODEL, "no name, rate, labels"),
    "labels of numbers": (text_of(labels=[1, 2, 3]), BAD_MODEL, "no string"),
    "labels as an object": (text_of(labels={"0": "a"}), BAD_MODEL, "no list"),
    "another number of labels": (text_of(labels=["a", "b"], golden=None), BAD_MODEL, "3 numbers and not one float for each of 2 labels"),
    "many labels": (text_of(labels=["x"] * 100_001), BAD_MODEL, "too long"),
    "rate 0": (text_of(rate=0), BAD_MODEL, "out of its bounds"),
    "rate of half a hertz": (text_of(rate=16000.5), BAD_MODEL, "out of its bounds"),
    "rate of 1e200": ('{"rate":1e200,' + text_of()[1:], BAD_MODEL, "out of its bounds"),
    "rate null": (text_of(rate=None), BAD_MODEL, "no number"),
    "no frontend": (text_of(frontend=[]), BAD_MODEL, "no object"),
    "no min_samples": (text_of(frontend={"rate": 16000}), BAD_MODEL, "without min_samples"),
    "negative min_samples": (text_of(frontend=FRONTEND | {"min_samples": -1}), BAD_MODEL, "out of its bounds"),
    "huge min_samples": (text_of(frontend=FRONTEND | {"min_samples": 2**62}), BAD_MODEL, "out of its bounds"),
    "frontend outside": (text_of(frontend_in_graph=False), BAD_MODEL, "a frontend outside of the graph"),
    "frontend nowhere": (text_of(frontend_in_graph=0), BAD_MODEL, "neither true nor false"),
    "golden of two logits": (text_of(golden=GOLDEN | {"logits": [1, 2]}), BAD_MODEL, "another number of labels"),
    "golden without tolerance": (text_of(golden={"seconds": 1, "logits": [1, 2, 3]}), BAD_MODEL, "without seconds, tolerance"),
    "golden of NaN": (text_of(golden=GOLDEN | {"tolerance": float("nan")}), BAD_MODEL, "no number"),
    "nested": ('{"x":' + "[" * 100_000 + "]" * 100_000 + ',"schema":1}', BAD_MODEL, "nested too deeply"),
    "nested objects": ('{"x":' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "}", BAD_MODEL, "nested too deeply"),
    "half a pair": (text_of(name="\ud800"), BAD_MODEL, "no character"),
    "the second half": (text_of(name="\udc00x"), BAD_MODEL, "no character"),
    "two first halves": (text_of(name="\ud800\ud800"), BAD_MODEL, "no character"),
    "a zero": (text_of(name="a\0b"), BAD_MODEL, "no character"),
    "escape at the end": ('{"schema":1,"name":"\\u00', BAD_MODEL, "no character"),
    "backslash at the end": ('{"schema":1,"name":"\\', BAD_MODEL, "no character"),
    "unknown escape": ('{"schema":1,"name":"\\x41"}', BAD_MODEL, "no character"),
    "open string": ('{"schema":1,"name":"abc', BAD_MODEL, "without an end"),
    "a line in a string": ('{"schema":1,"name":"a\nb"}', BAD_MODEL, "without an end"),
    "leading zero": ('{"schema":01}', BAD_MODEL, "begins with 0"),
    "bare point": ('{"schema":1.}', BAD_MODEL, "ends with its point"),
    "bare exponent": ('{"schema":1e}', BAD_MODEL, "without its exponent"),
    "plus": ('{"schema":+1}', BAD_MODEL, "no number"),
    "NaN": ('{"schema":NaN}', BAD_MODEL, "no number"),
    "comment": ('{"schema":1 /* one */}', BAD_MODEL, "no comma"),
}


def test_a_hostile_manifest_is_an_error_that_says_why(checked: Host, tmp_path: Path):
    names = {str(index): name for index, name in enumerate(MANIFESTS)}
    found = errors(checked, tmp_path, {index: tiny(MANIFESTS[name][0]).SerializeToString() for index, name in names.items()})
    for index, each in found.items():
        _, code, text = MANIFESTS[names[index]]
        for got, said in each:
            assert got == code, (names[index], said)
            assert text in said, names[index]


@pytest.mark.parametrize("broken", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xf0\x80\x80\x80"])
def test_a_manifest_that_is_no_utf8_is_an_error(broken: bytes, checked: Host, tmp_path: Path):
    mark = "#" * len(broken)
    model = tiny(text_of(name=f"a{mark}b")).SerializeToString().replace(mark.encode(), broken)
    for code, text in errors(checked, tmp_path, {"m": model})["m"]:
        assert code == BAD_MODEL
        assert "UTF-8" in text


def test_a_number_is_read_as_pythons_json_reads_it(checked: Host, tmp_path: Path):
    for number in ("0.0652664", "1e-05", "1.5E+2", "123456789.123456789", "4.9406564584124654e-30", "0.1000000000000000055511151231257827"):
        manifest = text_of().replace('"tolerance": 1e-05', f'"tolerance": {number}')
        assert number in manifest
        tiny_models.write(tmp_path / "m.onnx", tiny(manifest))
        assert float(checked.probe("verify", tmp_path / "m.onnx")[0][1]) == pytest.approx(float(number), rel=1e-8)  # nine digits printed


FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
SEQUENCE = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))
OPTIONAL = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, None))
GRAPHS: dict[str, tuple[onnx.ModelProto, int, str]] = {
    "no manifest": (tiny(None), NO_MANIFEST, "without a stapes manifest; make one with `stapes export`"),
    "another input": (tiny(inputs=("waveform", "lengths", "extra")), BAD_MODEL, "3 inputs instead of waveform and lengths"),
    "another name": (tiny(inputs=("waveform", "sizes")), BAD_MODEL, "no input lengths"),
    "scores of too few": (
        tiny(scores=[helper.make_node("ReduceMax", ["logits"], ["scores"])]),
        BAD_MODEL,
        "1 numbers and not one float for each of 3 labels",
    ),
    "scores of too many": (
        tiny(scores=[helper.make_node("Concat", ["logits", "logits"], ["scores"], axis=1)]),
        BAD_MODEL,
        "6 numbers and not one float for each of 3 labels",
    ),
    "scores of none": (
        tiny(
            scores=[helper.make_node("ConstantOfShape", ["none"], ["scores"])],
            before=[helper.make_node("Constant", [], ["none"], value_ints=[1, 0])],
        ),
        BAD_MODEL,
        "0 numbers",
    ),
    "whole numbers": (
        tiny(scores=[helper.make_node("Cast", ["logits"], ["scores"], to=INT64)], outputs={"scores": INT64}),
        BAD_MODEL,
        "no floats",
    ),
    "texts": (
        tiny(scores=[helper.make_node("Cast", ["logits"], ["scores"], to=STRING)], outputs={"scores": STRING}),
        BAD_MODEL,
        "no floats",
    ),
    "a sequence": (
        tiny(scores=[helper.make_node("SequenceConstruct", ["logits"], ["scores"])], outputs={"scores": SEQUENCE}),
        BAD_MODEL,
        "not one float",
    ),
    "nothing at all": (
        tiny(
            scores=[helper.make_node("Optional", [], ["scores"], type=helper.make_tensor_type_proto(FLOAT, None))],
            outputs={"scores": OPTIONAL},
        ),
        BAD_MODEL,
        "",
    ),
    "NaN": (
        tiny(scores=[helper.make_node("Sub", ["logits", "logits"], ["nought"]), helper.make_node("Div", ["nought", "nought"], ["scores"])]),
        BAD_MODEL,
        "NaN as the score of mean",
    ),
    "a run that fails": (
        tiny(scores=[helper.make_node("Reshape", ["logits", "lengths"], ["scores"])]),
        BAD_MODEL,
        "failed to run the model",
    ),
}


def test_a_graph_that_is_no_classifier_is_an_error_that_says_why(checked: Host, tmp_path: Path):
    names = {str(index): name for index, name in enumerate(GRAPHS)}
    found = errors(checked, tmp_path, {index: GRAPHS[name][0].SerializeToString() for index, name in names.items()})
    for index, each in found.items():
        _, code, text = GRAPHS[names[index]]
        for got, said in each:
            assert got == code, (names[index], said)
            assert text in said, names[index]


def external(path: Path, location: str) -> None:
    """The tiny model, its weights elsewhere."""
    model = tiny()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    tiny_models.write(path, model)


def test_weights_beside_the_model_are_found_and_missing_ones_named(checked: Host, tmp_path: Path):
    (tmp_path / "model").mkdir()
    for place in (tmp_path, tmp_path / "model"):
        (place / "w.bin").write_bytes(bytes(4))
    for name, location in (("here", "w.bin"), ("gone", "gone.bin"), ("above", "../w.bin")):
        external(tmp_path / "model" / f"{name}.onnx", location)
    here, gone, above = [checked.probe("load", f"model/{name}.onnx", cwd=tmp_path)[0] for name in ("here", "gone", "above")]
    assert here[1] == str(OK)
    assert gone[1] == str(BAD_MODEL)
    assert "gone.bin" in gone[2]
    assert above[1] == str(BAD_MODEL)  # by ONNX Runtime from 1.24 on
    assert "w.bin" in above[2]


# Sounds of strangers


def wav(samples: np.ndarray, rate: int = 16000, **changes: Any) -> bytes:
    """A WAV file of 16 bits, by hand."""
    data = samples.astype("<i2").tobytes()
    said = {"format": 1, "channels": 1, "rate": rate, "bytes": 2 * rate, "align": 2, "bits": 16} | changes
    body = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, *(said[key] for key in ("format", "channels", "rate", "bytes", "align", "bits")))
    return b"RIFF" + struct.pack("<I", len(body) + 8 + len(data)) + body + b"data" + struct.pack("<I", len(data)) + data


PLAIN = wav(np.arange(40))
SOUNDS: dict[str, tuple[bytes, str]] = {
    "plain": (PLAIN, "40 1 16000 finite"),
    "empty": (b"", "no WAV file"),
    "text": (b"RIFFwhatever", "no WAV file"),
    "no chunks": (PLAIN[:12], "no samples in it"),
    "endless": (PLAIN.replace(b"data\x50\0\0\0", b"data\xff\xff\xff\xff"), "40 1 16000 finite"),
    "more than there is": (PLAIN.replace(b"data\x50\0\0\0", b"data\xfe\xff\xff\xff"), "truncated"),
    "format chunk of 4 GB": (PLAIN.replace(b"fmt \x10\0\0\0", b"fmt \xff\xff\xff\xff"), "truncated"),
    "format of 4 bytes": (b"RIFF\0\0\0\0WAVEfmt \4\0\0\0abcddata\0\0\0\0", "shorter than 16 bytes"),
    "samples first": (b"RIFF\0\0\0\0WAVEdata\4\0\0\0abcd", "does not say its format"),
    "no channels": (wav(np.arange(4), channels=0, align=0), "no channels"),
    "65535 channels": (wav(np.arange(4), channels=65535, align=65534), "contradicts itself"),
    "another alignment": (wav(np.arange(4), align=4), "contradicts itself"),
    "12 bits": (wav(np.arange(4), bits=12), "contradicts itself"),
    "8 bits": (wav(np.arange(4), bits=8, align=1), "neither PCM of 16, 24 or 32 bits nor float"),
    "0 bits": (wav(np.arange(4), bits=0, align=0), "neither PCM"),
    "64 bits": (wav(np.arange(4), bits=64, align=8, format=3), "neither PCM"),
    "a-law": (wav(np.arange(4), format=6), "neither PCM"),
    "extensible without the rest": (wav(np.arange(4), format=0xFFFE), "extensible format is of no known kind"),
    "an odd chunk before": (PLAIN[:12] + b"LIST\3\0\0\0abc\0" + PLAIN[12:], "40 1 16000 finite"),
    "half a sample at the end": (wav(np.arange(40))[:-1].replace(b"data\x50\0\0\0", b"data\x4f\0\0\0"), "39 1 16000 finite"),
    "not a number": (wav(np.array([-1, -1] * 4), format=3, bits=32, align=4), "4 1 16000 not finite"),
    "rate of 2^31": (wav(np.arange(4), bytes=0).replace(struct.pack("<I", 16000), struct.pack("<I", 2**31)), "4 1 0 finite"),
}


def test_a_wav_is_read_or_refused_with_a_reason(checked: Host, tmp_path: Path):
    names = {str(index): name for index, name in enumerate(SOUNDS)}
    for index, name in names.items():
        (tmp_path / index).write_bytes(SOUNDS[name][0])
    for index, said in checked.probe("wav", *names, cwd=tmp_path):
        assert SOUNDS[names[index]][1] in said, names[index]


@pytest.mark.parametrize("container", ["WAV", "WAVEX"])
def test_truncated_and_mutated_wavs_never_crash(container: str, checked: Host, tmp_path: Path):
    soundfile.write(tmp_path / "whole.wav", noise(20, 2), 16000, subtype="PCM_24", format=container)
    whole = (tmp_path / "whole.wav").read_bytes()
    for size in range(len(whole)):
        (tmp_path / f"t{size}").write_bytes(whole[:size])
    said = checked.probe("wav", *[f"t{size}" for size in range(len(whole))], cwd=tmp_path)
    assert all(re.search(r"no WAV file|truncated|no samples|does not say", text) for _, text in said)
    draw = random.Random(3)
    for number in range(1500):
        mutated = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            mutated[draw.randrange(min(len(whole), 100))] = draw.choice([0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)])
        (tmp_path / f"m{number}").write_bytes(mutated)
    assert len(checked.probe("wav", *[f"m{number}" for number in range(1500)], cwd=tmp_path)) == 1500


# Memory


def test_valgrind_finds_no_leak_and_no_wrong_access_of_ours(host: Host, tiny_model: Path, tmp_path: Path):
    need("valgrind")
    soundfile.write(tmp_path / "clip.wav", noise(8000, 2), 16000)
    tiny_models.write(tmp_path / "newer.onnx", tiny(text_of(schema=2)))
    tiny_models.write(tmp_path / "damaged.onnx", tiny(text_of(labels=["a", "b"])))
    commands = [
        [host.folder / "stapes-classify", tiny_model, tmp_path / "clip.wav"],
        [host.folder / "probe", "load", tiny_model, tmp_path / "newer.onnx", tmp_path / "damaged.onnx"],
    ]
    for command in commands:
        done = run(["valgrind", "--leak-check=full", *command])
        assert done.returncode == 0, done.stderr
        assert re.search(r"definitely lost: 0 bytes|no leaks are possible", done.stderr), done.stderr
        # what valgrind says of ONNX Runtime's inside is not ours: its complaints begin where the access is
        for complaint in re.findall(r"(?:Invalid|uninitialised|Mismatched)[^\n]*\n==\d+==    at [^\n]*", done.stderr):
            assert "libonnxruntime" in complaint, done.stderr
