"""The CPython extension over stapes.h: built here by its own setup.py, and used in processes that import nothing else."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models
from c_build import need, run, wheel_library
from hosts.conftest import NATIVE, Expected
from tiny_models import MANIFEST, tiny

from stapes.bundle import read_manifest

Python = Callable[..., str]

PRELUDE = """
import array, json, sys, wave
from stapes_host import AudioError, Error, Model, ModelError, ModelNotFound

def read(path):
    with wave.open(path) as file:
        return array.array("h", file.readframes(file.getnframes())), file.getframerate()

def error(kind, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except Exception as caught:
        assert type(caught) is kind, repr(caught)
        assert "\\n" not in str(caught)
        return str(caught)
    raise AssertionError(f"no {kind.__name__}")
"""


def build(root: Path, folder: Path, flags: str, link: str = "") -> Path:
    """The folder with the built package."""
    need("cc")
    source = root / "examples" / "hosts" / "python-extension"
    env = {**os.environ, "ORT": str(wheel_library()), "CFLAGS": f"-Wall -Wextra -Werror {flags}", "LDFLAGS": link}
    command = [sys.executable, "setup.py", "build", "--build-base", folder / "work", "--build-lib", folder / "lib"]
    done = run(command, cwd=source, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "lib"


def python(code: str, *arguments: str | Path, path: Path, env: dict[str, str] | None = None) -> str:
    """What a fresh interpreter prints that finds the package and, of other packages, none."""
    script = PRELUDE + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-S", "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={"PYTHONPATH": str(path), **(env or {})},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def extension(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(root, tmp_path_factory.mktemp("extension"), "-O2")


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    return tiny_models.write(tmp_path / "tiny.onnx", tiny())


SCORES = """
model, samples, rate = Model(sys.argv[1]), *read(sys.argv[2])
print(json.dumps(model.classify(samples, rate, top_k=None)))
"""


def test_the_scores_of_the_fp32_model_are_pythons(extension: Path, fp32_model: Path, waves: list[Path], expected: Expected):
    for wave in waves[:2]:
        found = dict(json.loads(python(SCORES, fp32_model, wave, path=extension)))
        wanted = expected(fp32_model, wave)
        assert next(iter(found)) == next(iter(wanted))
        assert found.keys() == wanted.keys()
        assert max(abs(found[label] - wanted[label]) for label in wanted) <= NATIVE


def test_the_scores_of_the_int8_model_are_within_its_tolerance(extension: Path, int8_model: Path, waves: list[Path], expected: Expected):
    golden = read_manifest(int8_model).golden
    assert golden is not None
    for wave in waves:
        found, wanted = dict(json.loads(python(SCORES, int8_model, wave, path=extension))), expected(int8_model, wave)
        assert next(iter(found)) == next(iter(wanted))
        assert max(abs(found[label] - wanted[label]) for label in wanted) <= golden.tolerance


def example(root: Path, extension: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = root / "examples" / "hosts" / "python-extension" / "classify.py"
    return run([sys.executable, "-S", program, *arguments], env={"PYTHONPATH": str(extension)})


def test_the_example_prints_labels_and_scores(root: Path, extension: Path, int8_model: Path, expected: Expected):
    wave = root / "examples" / "yes.wav"
    done = example(root, extension, int8_model, wave, "3")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    wanted = expected(int8_model, wave)
    assert [label for label, _ in lines] == list(wanted)[:3]
    assert all(abs(float(score) - wanted[label]) <= 1e-4 for label, score in lines)


def test_the_example_says_what_is_wrong(root: Path, extension: Path, int8_model: Path, tmp_path: Path):
    (tmp_path / "text.wav").write_text("no sound")
    for arguments, sentence in (
        ((), "python classify.py MODEL WAV [K]"),
        ((tmp_path / "none.onnx", tmp_path / "text.wav"), "none.onnx"),
        ((int8_model, tmp_path / "text.wav"), "text.wav"),
        ((int8_model, tmp_path / "none.wav"), "none.wav"),
    ):
        done = example(root, extension, *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert sentence in line


def test_neither_numpy_nor_onnxruntime_is_imported(extension: Path, int8_model: Path, waves: list[Path]):
    loaded = json.loads(python(SCORES + "print(json.dumps(sorted(sys.modules)))", int8_model, waves[0], path=extension).splitlines()[1])
    assert {"stapes_host", "stapes_host._model"} <= set(loaded)
    assert not {name.split(".")[0] for name in loaded} & {"numpy", "onnxruntime", "stapes", "soundfile"}


def test_it_is_built_for_the_stable_abi(extension: Path):
    names = sorted(path.name for path in (extension / "stapes_host").iterdir() if path.name != "__pycache__")
    assert names == ["__init__.py", "_model.abi3.so", "libonnxruntime.so.1"]


def test_a_model_tells_what_it_is(extension: Path, tiny_model: Path):
    told = python(
        "m = Model(source=sys.argv[1], threads=1); print(json.dumps([m.name, m.labels, m.rate, m.min_samples, m.verify()]))",
        tiny_model,
        path=extension,
    )
    name, labels, rate, shortest, difference = json.loads(told)
    assert (name, tuple(labels), rate, shortest) == (MANIFEST.name, MANIFEST.labels, MANIFEST.rate, MANIFEST.frontend.min_samples)
    assert 0 <= difference <= 1e-7


BUFFERS = """
model, (samples, rate) = Model(sys.argv[1]), read(sys.argv[2])
wanted = model.classify(samples, rate)
floats = array.array("f", [value / 32768 for value in samples])
stereo = array.array("h", [value for value in samples for _ in range(2)])
raw = samples.tobytes()
with open(sys.argv[1], "rb") as file:
    content = file.read()
ways = {
    "float32": model.classify(floats, rate),
    "memoryview": model.classify(memoryview(samples), rate),
    "part": model.classify(memoryview(array.array("h", [9]) + samples)[1:], rate),
    "unaligned": model.classify(memoryview(b"x" + raw)[1:].cast("h"), rate),
    "stereo": model.classify(stereo, rate, channels=2),
    "stereo of two axes": model.classify(memoryview(stereo).cast("B").cast("h", (len(samples), 2)), rate, 2),
    "keywords": model.classify(samples=samples, rate=rate, channels=1, top_k=5),
    "bytes": Model(content).classify(samples, rate),
    "bytearray": Model(bytearray(content)).classify(samples, rate),
    "Path": Model(__import__("pathlib").Path(sys.argv[1])).classify(samples, rate),
}
for name, found in ways.items():
    assert [label for label, _ in found] == [label for label, _ in wanted], name
    assert max(abs(a - b) for (_, a), (_, b) in zip(found, wanted)) < 1e-6, name
assert len(wanted) == 5 and len(model.classify(samples, rate, top_k=2)) == 2
assert len(model.classify(samples, rate, top_k=None)) == len(model.classify(samples, rate, top_k=10**30)) == len(model.labels)
samples.append(0)  # the buffer was let go
print("well")
"""


def test_every_buffer_of_float32_or_int16_is_taken(extension: Path, int8_model: Path, waves: list[Path]):
    assert python(BUFFERS, int8_model, waves[0], path=extension) == "well\n"


ERRORS = """
model, f = Model(sys.argv[1]), lambda *values: array.array("f", values)
good, folder = f(*[0.1] * 800), sys.argv[2]
assert issubclass(Error, ValueError) and issubclass(ModelNotFound, FileNotFoundError) and issubclass(ModelNotFound, ModelError)
assert issubclass(ModelError, Error) and issubclass(AudioError, Error)
assert "has 8000 samples a second and tiny takes 16000" in error(AudioError, model.classify, good, 8000)
assert "has 0 samples" in error(AudioError, model.classify, f(), 16000)
assert "needs 400" in error(AudioError, model.classify, good[:399], 16000)
assert "NaN or infinite" in error(AudioError, model.classify, f(*[0.1] * 500, float("nan")), 16000)
assert "no whole number of frames of 3 channels" in error(AudioError, model.classify, good, 16000, 3)
assert "0 channels" in error(AudioError, model.classify, good, 16000, 0)
assert "9 channels" in error(Error, model.classify, f(*[0.1] * 9000), 16000, 9)
assert "top_k is 1 or more" in error(ValueError, model.classify, good, 16000, top_k=0)
assert "top_k is 1 or more" in error(ValueError, model.classify, good, 16000, top_k=-(10**30))
error(TypeError, model.classify, good, 16000, top_k=1.5)
assert "not 'd'" in error(TypeError, model.classify, array.array("d", good), 16000)
assert "not 'B'" in error(TypeError, model.classify, bytes(8000), 16000)
assert "not 'H'" in error(TypeError, model.classify, array.array("H", [1] * 800), 16000)
error(TypeError, model.classify, [0.0] * 800, 16000)
error(TypeError, model.classify, "text", 16000)
error(TypeError, model.classify, good)
error(OverflowError, model.classify, good, 10**30)
error(BufferError, model.classify, memoryview(good)[::2], 16000)
two = memoryview(good).cast("B").cast("f", (400, 2))
assert "another number of channels" in error(AudioError, model.classify, two, 16000)
assert "of 3 axes" in error(AudioError, model.classify, memoryview(good).cast("B").cast("f", (100, 2, 4)), 16000, 4)

assert "no model at" in error(ModelNotFound, Model, folder + "/gone.onnx")
assert "regular file" in error(ModelNotFound, Model, folder)
assert "without a stapes manifest" in error(ModelError, Model, folder + "/bare.onnx")
assert "manifest schema 2" in error(ModelError, Model, folder + "/newer.onnx")
assert "cannot load the model in memory" in error(ModelError, Model, b"")
assert "cannot load the model in memory" in error(ModelError, Model, b"no model")
assert "no golden test" in error(ModelError, Model(folder + "/plain.onnx").verify)
assert "threads" in error(Error, Model, sys.argv[1], threads=-1)
error(ValueError, Model, "nul\\0byte")
error(TypeError, Model, 5)
error(TypeError, Model)
error(TypeError, setattr, Model, "rate", 1)
error(AttributeError, setattr, model, "rate", 1)
print("well")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    newer = json.dumps(json.loads(MANIFEST.to_json()) | {"schema": 2})
    tiny_models.write(tmp_path / "bare.onnx", tiny(None))
    tiny_models.write(tmp_path / "newer.onnx", tiny(newer))
    tiny_models.write(tmp_path / "plain.onnx", tiny(tiny_models.told(golden=None)))
    return tmp_path


def test_every_mistake_is_an_exception_of_its_kind(extension: Path, tiny_model: Path, folder: Path):
    assert python(ERRORS, tiny_model, folder, path=extension) == "well\n"


def test_the_sanitizers_find_nothing(
    root: Path, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, int8_model: Path, folder: Path, waves: list[Path]
):
    flags = "-g -fsanitize=address,undefined -fno-sanitize-recover=undefined"
    built = build(root, tmp_path_factory.mktemp("sanitized"), flags, flags)
    library = run(["cc", "-print-file-name=libasan.so"]).stdout.strip()
    env = {"LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}  # the interpreter itself leaks
    assert python(ERRORS, tiny_model, folder, path=built, env=env) == "well\n"
    assert python(BUFFERS, int8_model, waves[0], path=built, env=env) == "well\n"


def test_eight_threads_share_a_model(extension: Path, int8_model: Path, waves: list[Path]):
    code = """
    from threading import Thread
    model, (samples, rate), answers = Model(sys.argv[1], threads=1), read(sys.argv[2]), []
    def work():
        for _ in range(10):
            answers.append(model.classify(samples, rate, top_k=None))
    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(len(answers), all(answer == answers[0] for answer in answers))
    """
    assert python(code, int8_model, waves[0], path=extension) == "80 True\n"


def test_other_threads_run_while_a_model_does(extension: Path, int8_model: Path):
    # nobody takes the lock away by force for 1000 s, so that the main thread wakes up early only if it was given
    code = """
    from threading import Event, Thread
    sys.setswitchinterval(1000)
    model, samples, begun, ended = Model(sys.argv[1], threads=1), array.array("f", [0.1, -0.1] * 80000), Event(), []
    def work():
        begun.set()
        model.classify(samples, 16000)
        ended.append(True)
    thread = Thread(target=work)
    thread.start()
    begun.wait()
    print(bool(ended))
    thread.join()
    print(bool(ended))
    """
    assert python(code, int8_model, path=extension) == "False\nTrue\n"


def test_it_survives_being_imported_again(extension: Path, tiny_model: Path):
    code = """
    old, samples = Model(sys.argv[1]), array.array("f", [0.1] * 800)
    for name in [name for name in sys.modules if name.startswith("stapes_host")]:
        del sys.modules[name]
    import stapes_host
    assert stapes_host.Model is not Model
    new = stapes_host.Model(sys.argv[1])
    assert old.classify(samples, 16000) == new.classify(samples, 16000)
    error(AudioError, old.classify, samples, 8000)
    error(stapes_host.AudioError, new.classify, samples, 8000)
    import gc
    del stapes_host, new
    gc.collect()
    error(AudioError, old.classify, samples, 8000)
    print("well")
    """
    assert python(code, tiny_model, path=extension) == "well\n"


def test_it_survives_in_subinterpreters(extension: Path, tiny_model: Path):
    code = """
    try:
        import _interpreters as interpreters
        execute = interpreters.exec
    except ImportError:
        import _xxsubinterpreters as interpreters
        execute = interpreters.run_string
    inside = f'''
    import array, stapes_host
    model = stapes_host.Model({sys.argv[1]!r})
    assert len(model.classify(array.array("f", [0.1] * 800), 16000)) == 3
    try:
        model.classify(array.array("f", [0.1] * 800), 8000)
    except stapes_host.AudioError as error:
        assert "8000" in str(error)
    else:
        raise AssertionError("no error")
    '''
    import textwrap
    model = Model(sys.argv[1])
    for _ in range(3):
        made = [interpreters.create() for _ in range(2)]
        for each in made:
            failure = execute(each, textwrap.dedent(inside))
            assert failure is None, failure
        for each in made:
            interpreters.destroy(each)
        model.classify(array.array("f", [0.1] * 800), 16000)
    print("well")
    """
    assert python(code, tiny_model, path=extension) == "well\n"


def test_models_and_answers_are_let_go(extension: Path, tiny_model: Path):
    code = """
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096
    with open(sys.argv[1], "rb") as file:
        content, samples = file.read(), array.array("f", [0.1] * 160000)
    def rounds(count):
        for _ in range(count):
            model = Model(content, threads=1)
            model.classify(samples, 16000)
            model.labels
            try: Model(content[:200])
            except ModelError: pass
            try: model.classify(samples, 1)
            except AudioError: pass
    rounds(50)
    before = resident()
    rounds(300)
    print((resident() - before) // 2**20)
    """
    grown = int(python(code, tiny_model, path=extension))
    assert grown < 16  # MB; the 300 clips alone are 192 MB
