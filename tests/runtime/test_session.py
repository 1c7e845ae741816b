"""The device that was asked for, or a sentence that names the remedy."""

import numpy as np
import pytest

import stapes
from stapes import session
from stapes.classifier import DEFAULT_MODEL
from stapes.errors import DeviceError, ModelError

ort = pytest.importorskip("onnxruntime")
HAS_CUDA = "CUDAExecutionProvider" in ort.get_available_providers()


@pytest.mark.skipif(HAS_CUDA, reason="this ONNX Runtime is built with CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_without_a_cuda_build_is_an_error_that_names_the_extra(device: str):
    with pytest.raises(DeviceError, match=r"stapes\[gpu\]"):
        stapes.load(device=device)


@pytest.mark.skipif(not HAS_CUDA, reason="this ONNX Runtime is built without CUDA")
def test_cuda_with_a_cuda_build_comes_up_or_is_an_error():
    if session.bring_up(DEFAULT_MODEL, session.CUDA) is None:
        assert stapes.load(device="cuda").device == "cuda:0"
    else:
        with pytest.raises(DeviceError, match="did not come up"):
            stapes.load(device="cuda")
        assert stapes.load().device == "cpu"


@pytest.mark.parametrize("device", ["tpu", "cuda:", "cuda:-1", "CPU", "", "0"])
def test_an_unknown_device_is_an_error_that_lists_the_known(device: str):
    with pytest.raises(DeviceError, match="auto, cpu, cuda"):
        stapes.load(device=device)


def test_auto_always_finds_a_device():
    assert stapes.load().device in {"cpu", "cuda:0"}


@pytest.mark.parametrize("threads", [0, -2])
def test_threads_start_at_one(threads: int):
    with pytest.raises(DeviceError, match="threads"):
        stapes.load(threads=threads)


def test_threads_do_not_change_the_answer(root):
    clip = root / "examples" / "yes.flac"
    assert stapes.load(threads=1)(clip)[0].label == stapes.load(threads=2)(clip)[0].label == "yes"


def test_a_graph_that_onnx_runtime_refuses_is_a_model_error(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(DEFAULT_MODEL.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="truncated"):
        stapes.load(broken)
    with pytest.raises(ModelError, match="cannot load"):
        session.Session(broken)


def test_a_cpu_without_what_the_model_needs_is_recognised(monkeypatch):
    monkeypatch.setattr(session, "_cpu_flags", lambda: {"avx2", "fma"})
    assert session.missing(("vnni", "amx", "dotprod"))
    assert not session.missing(())
    monkeypatch.setattr(session, "_cpu_flags", lambda: {"avx2", "avx_vnni"})
    assert not session.missing(("vnni", "amx", "dotprod"))
    monkeypatch.setattr(session, "_cpu_flags", set)  # a host that does not tell
    assert not session.missing(("vnni",))


def test_without_onnx_runtime_the_error_names_the_extra(stapes_command):
    done = stapes_command("classify", "examples/yes.flac", without=("onnxruntime",))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'stapes[cpu]'" in done.stderr


FEEDS = {"waveform": np.random.default_rng(0).standard_normal((3, 9000)).astype(np.float32), "lengths": np.array([9000, 8000, 7000])}


@pytest.fixture(scope="module")
def graph():
    return ort.InferenceSession(DEFAULT_MODEL, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("outputs", [["logits"], ["scores", "logits"]])
def test_bound_inputs_and_outputs_give_what_a_plain_run_gives(outputs: list[str], graph):
    for feeds in (FEEDS, {name: value[:1] for name, value in FEEDS.items()}, FEEDS):  # nothing is left of the run before
        found = session.bound_run(graph, outputs, feeds)
        assert [value.dtype for value in found] == [np.float32] * len(outputs)
        assert all(np.array_equal(a, b) for a, b in zip(found, graph.run(outputs, feeds), strict=True))


def test_bound_inputs_need_not_lie_in_one_piece(graph):
    scattered = {name: np.repeat(value, 2, axis=-1)[..., ::2] for name, value in FEEDS.items()}
    assert not scattered["waveform"].flags.c_contiguous
    assert np.array_equal(session.bound_run(graph, ["logits"], scattered)[0], graph.run(["logits"], FEEDS)[0])


@pytest.mark.parametrize(
    "feeds",
    [
        {},
        {"waveform": FEEDS["waveform"]},
        FEEDS | {"more": FEEDS["lengths"]},
        FEEDS | {"lengths": FEEDS["waveform"]},
        FEEDS | {"waveform": FEEDS["waveform"][0]},
    ],
    ids=["none", "one missing", "one too many", "another type", "another rank"],
)
def test_a_device_with_its_own_memory_refuses_what_the_cpu_refuses(feeds):
    own = session.Session(DEFAULT_MODEL, "cpu")
    with pytest.raises(ModelError, match="the model failed on"):
        own.run(["logits"], feeds)
    own.device = "cuda:0"  # the way its runs go there; the graph stays on the CPU
    with pytest.raises(ModelError, match="the model failed on"):
        own.run(["logits"], feeds)


def test_a_device_with_its_own_memory_answers_as_the_cpu():
    own = session.Session(DEFAULT_MODEL, "cpu")
    plain = own.run(["logits"], FEEDS)
    own.device = "cuda:0"
    assert np.array_equal(own.run(["logits"], FEEDS)[0], plain[0])
