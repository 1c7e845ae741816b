"""What the host can run: every fact a finding, every fault with its remedy, and no traceback whatever is broken."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from stapes import doctor, session
from stapes.classifier import DEFAULT_MODEL
from stapes.doctor import Finding, Runtime, examine, judge_cpu

ort = pytest.importorskip("onnxruntime")
HAS_CUDA = "CUDAExecutionProvider" in ort.get_available_providers()

NO_LIBRARY = """
\x1b[1;31m2026-11-24 16:18:21.440872480 [E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()] /onnxruntime_src/onnxruntime/core/\
session/provider_bridge_ort.cc:2043 onnxruntime::Provider& onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to \
load library /usr/lib/python3/site-packages/onnxruntime/capi/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open \
shared object file: No such file or directory
\x1b[m
\x1b[0;93m2026-11-24 16:18:21.440933514 [W:onnxruntime:Default, onnxruntime_pybind_state.cc:1295 CreateExecutionProviderFactoryInstance] \
Failed to create CUDAExecutionProvider. Require cuDNN 9.* and CUDA 13.*.\x1b[m
"""

NO_DRIVER = """
*************** EP Error ***************
EP Error /onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 std::conditional_t<THRW, void, onnxruntime::common::Status> \
onnxruntime::CudaCall(ERRTYPE, const char*, int) [with ERRTYPE = cudaError; bool THRW = true; SUCCTYPE = cudaError] CUDA failure 35: CUDA \
driver version is insufficient for CUDA runtime version ; GPU=-1 ; hostname=vm ; line=355 ; expr=cudaSetDevice(info_.device_id);

 when using ['CUDAExecutionProvider', 'CPUExecutionProvider']
"""
"""What ONNX Runtime 1.31.1 for CUDA 13 says on hosts without the libraries and without a driver."""


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> list[Finding]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STAPES_CACHE", str(tmp_path_factory.mktemp("cache")))
        return examine()


def named(name: str, findings: Iterable[Finding]) -> Finding:
    (found,) = [finding for finding in findings if finding.name == name]
    return found


def reported(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    """The findings of `doctor --json` by name."""
    assert "Traceback" not in done.stderr
    return {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}


def distribution(folder: Path, name: str, number: str) -> None:
    """An entry in the table of installed packages, once `folder` is on the path."""
    entry = folder / f"{name.replace('-', '_')}-{number}.dist-info"
    entry.mkdir(parents=True)
    (entry / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")


def program(folder: Path, name: str, says: str) -> None:
    """A program that prints one line, whatever it is asked."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho '{says}'\n")
    (folder / name).chmod(0o755)


def test_every_fact_is_found_out(findings: list[Finding]):
    assert not [finding for finding in findings if "could not be found out" in finding.value]
    libraries = ("python", "system", "stapes", "numpy", "soxr", "soundfile", "onnxruntime", "providers")
    for name in (*libraries, "cpu", "decoders", "[hub]", "[plot]", "[export]", "cache"):
        assert named(name, findings).value


def test_whatever_is_wrong_has_a_remedy(findings: list[Finding]):
    assert not [finding for finding in findings if finding.state == "wrong" and not finding.remedy]


def test_the_embedded_model_answers_as_it_should_here(findings: list[Finding]):
    tests = [finding for finding in findings if finding.name == "golden test"]
    assert {finding.state for finding in tests} == {"ok"}
    assert "logits within" in tests[0].value
    assert "on cpu" in tests[0].value


def test_the_cpu_comes_up(findings: list[Finding]):
    assert session.bring_up(DEFAULT_MODEL, "CPUExecutionProvider") is None
    assert named("providers", findings).value.split(" up; ")[0].endswith("CPU")


def test_a_provider_that_is_not_there_has_a_reason():
    assert session.bring_up(DEFAULT_MODEL, "NoSuchExecutionProvider")


@pytest.mark.skipif(not HAS_CUDA, reason="this ONNX Runtime is built without CUDA")
def test_a_cuda_build_is_wrong_exactly_where_cuda_does_not_come_up(findings: list[Finding]):
    down = session.bring_up(DEFAULT_MODEL, "CUDAExecutionProvider")
    faults = [finding for finding in findings if finding.name == "cuda"]
    assert bool(faults) is (down is not None)
    assert all(finding.state == "wrong" and str(down) in finding.value for finding in faults)


def test_cuda_that_does_not_come_up_is_wrong_with_its_reason():
    build = session.Build("1.31.1", ("CUDAExecutionProvider", "CPUExecutionProvider"), "13.0")
    found = list(doctor._providers(Runtime(build, "", {"CUDAExecutionProvider": "libcublasLt.so.13: cannot open shared object file"})))
    assert named("providers", found).state == "ok"
    assert named("providers", found).value == "CPU up; this build offers CUDA, CPU"
    assert named("cuda", found).state == "wrong"
    assert "libcublasLt.so.13" in named("cuda", found).value
    assert "stapes[gpu]" in str(named("cuda", found).remedy)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (NO_LIBRARY, "libcublasLt.so.13: cannot open shared object file: No such file or directory"),
        (NO_DRIVER, "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version"),
        ("Traceback (most recent call last):\n  …\nValueError: no such provider\n", "ValueError: no such provider"),
        ("", "no reason was given"),
    ],
)
def test_the_reason_is_read_from_what_onnx_runtime_logs(said: str, reason: str):
    assert session.reason_in(said) == reason


@pytest.mark.parametrize("flag", ["avx512_vnni", "avx_vnni", "amx_int8", "asimddp"])
def test_a_cpu_that_multiplies_int8_is_ok(flag: str):
    finding = judge_cpu("some CPU", frozenset({"fpu", "avx2", flag}))
    assert finding.state == "ok"
    assert finding.remedy is None


def test_a_cpu_that_saturates_int8_is_a_note_with_the_way_around():
    finding = judge_cpu("some CPU", frozenset({"fpu", "avx2"}))
    assert finding.state == "note"
    assert "AVX2" in finding.value
    assert "int8-portable" in str(finding.remedy)


def test_a_cpu_that_does_not_tell_is_a_note_that_names_verify():
    finding = judge_cpu("some CPU", None)
    assert finding.state == "note"
    assert "stapes verify" in str(finding.remedy)


def test_a_probe_that_fails_is_a_finding_and_the_others_go_on():
    def broken(_: Runtime) -> Iterable[Finding]:
        raise ZeroDivisionError("by zero")

    def whole(_: Runtime) -> Iterable[Finding]:
        yield Finding("next", "fine")

    first, second = examine((broken, whole))
    assert first.state == "wrong"
    assert "ZeroDivisionError: by zero" in first.value
    assert second.value == "fine"


def test_without_onnx_runtime_the_rest_is_still_reported(stapes_command):
    done = stapes_command("doctor", "--json", without=("onnxruntime",))
    assert done.returncode == 1
    found = reported(done)
    assert found["onnxruntime"]["state"] == "wrong"
    assert "pip install 'stapes[cpu]'" in found["onnxruntime"]["remedy"]
    assert found["golden test"]["state"] == "note"
    assert {"numpy", "cpu", "decoders", "cache"} <= found.keys()


def test_soundfile_that_cannot_be_imported_is_wrong(stapes_command):
    done = stapes_command("doctor", "--json", without=("soundfile",))
    assert done.returncode == 1
    assert reported(done)["soundfile"]["state"] == "wrong"


@pytest.mark.parametrize("other", ["onnxruntime-directml", "onnxruntime-openvino"])
def test_two_builds_of_onnx_runtime_over_one_another_are_wrong(other: str, stapes_command, tmp_path: Path):
    distribution(tmp_path, other, "1.0")
    done = stapes_command("doctor", "--json", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    found = reported(done)["onnxruntime"]
    assert found["state"] == "wrong"
    assert f"{other} 1.0" in found["value"]
    assert f"{other} && pip install 'stapes[" in found["remedy"]
    assert found["remedy"].startswith("pip uninstall -y onnxruntime")


def test_the_gpu_build_is_the_one_that_comes_back(stapes_command, tmp_path: Path):
    for name in ("onnxruntime", "onnxruntime-gpu"):
        distribution(tmp_path, name, "1.0")
    found = reported(stapes_command("doctor", "--json", env={"PYTHONPATH": str(tmp_path)}))["onnxruntime"]
    assert found["remedy"] == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'stapes[gpu]'"


def test_a_file_in_the_place_of_the_cache_is_wrong(stapes_command, tmp_path: Path):
    (tmp_path / "taken").write_text("")
    for place in (tmp_path / "taken", tmp_path / "taken" / "below"):
        done = stapes_command("doctor", "--json", env={"STAPES_CACHE": str(place)})
        assert done.returncode == 1
        found = reported(done)["cache"]
        assert found["state"] == "wrong"
        assert "STAPES_CACHE" in found["remedy"]


def test_a_cache_that_is_not_there_yet_is_not_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("STAPES_CACHE", str(tmp_path / "a" / "b"))
    (found,) = doctor._cache(Runtime(None, "", {}))
    assert "not made yet" in found.value
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="a shell script is no program on Windows")
def test_programs_on_the_path_are_asked_for_their_versions(stapes_command, tmp_path: Path):
    program(tmp_path / "bin", "ffmpeg", "ffmpeg version 9.8.7 Copyright (c) the FFmpeg developers")
    program(tmp_path / "bin", "nvidia-smi", "NVIDIA Test, 550.1")
    found = reported(stapes_command("doctor", "--json", env={"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}))
    assert found["decoders"]["state"] == "ok"
    assert "ffmpeg 9.8.7" in found["decoders"]["value"]
    if sys.platform != "darwin":
        assert "NVIDIA Test, 550.1" in found["nvidia driver"]["value"]
        if not HAS_CUDA:
            assert "stapes[gpu]" in found["nvidia driver"]["remedy"]


def test_json_agrees_with_the_exit_status_and_the_table(stapes_command, tmp_path: Path):
    place = {"STAPES_CACHE": str(tmp_path)}
    done = stapes_command("doctor", "--json", env=place)
    said = json.loads(done.stdout)
    assert said.keys() == {"ok", "findings"}
    assert said["ok"] is (done.returncode == 0)
    assert said["ok"] is all(finding["state"] != "wrong" for finding in said["findings"])
    table = stapes_command("doctor", env=place).stdout.splitlines()
    states = [line.split()[:2] for line in table if not line.startswith(" ")]
    assert [state for state, *_ in states] == [finding["state"] for finding in said["findings"]]
    assert len(table) == len(said["findings"]) + sum(finding["remedy"] is not None for finding in said["findings"])


def test_torch_is_looked_up_and_never_imported():
    code = "import sys; from stapes import doctor; doctor.examine(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "matplotlib", "huggingface_hub"} & set(done.stdout.split())
