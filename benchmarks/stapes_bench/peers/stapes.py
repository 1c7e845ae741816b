"""Our own rows."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

import stapes
from stapes.audio import Clip
from stapes.decode import decoded
from stapes.predictions import activate, best
from stapes.resample import resampler
from stapes_bench.peers import Job

PACKAGES = ("stapes", "onnxruntime", "numpy")
INSTALLED = (("stapes",), ("cpu",))

REPEATS = 7
TOP_K = 5

PART, FRONTEND = "stapes.part", "frontend"
"""How the exporter tags a node; see stapes_export.artifact, which is not imported for its torch."""


class Model:
    def __init__(self, job: Job) -> None:
        self._path, self._threads = Path(job.model), job.threads
        self._classifier = stapes.load(self._path, device="cpu", threads=job.threads)

    def logits(self, clips: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return self._classifier.logits(clips)

    def scores(self, clips: list[NDArray[np.float32]]) -> object:
        if len(clips) == 1:
            return self._classifier(clips[0])
        return list(self._classifier.map(clips, batch_size=len(clips), num_workers=0))

    def stages(self, clip: NDArray[np.float32], file: Path) -> dict[str, list[float]]:
        """Seconds of each part of a clip's way, from an audio file on: what `scores` does, taken apart.

        A frontend inside the graph is timed as a graph of its own, and its median taken off the whole; without onnx_ir, which it takes
        to cut one, "frontend" is missing and stays in "model".
        """
        manifest = self._classifier.manifest
        frontend = self._frontend() if manifest.frontend_in_graph else lambda samples: manifest.frontend(samples)
        found: dict[str, list[float]] = {name: [] for name in ("decode", "resample", "frontend", "model", "post-processing")}
        ready = Clip(clip, manifest.rate)
        for _ in range(REPEATS):
            clock = _Clock()
            with decoded(file, file.name) as sound:
                blocks = [block.mean(axis=1) for block in sound.blocks]
                found["decode"].append(clock.lap())
                at_rate = resampler(sound.rate, manifest.rate)
                for block in blocks:
                    at_rate(block)
                at_rate(np.empty(0, np.float32), last=True)
                found["resample"].append(clock.lap())
            if frontend is not None:
                frontend(clip)
                found["frontend"].append(clock.lap())
            logits = self._classifier.logits([ready])
            found["model"].append(clock.lap())
            best(activate(logits, manifest.activation)[0], manifest.labels, TOP_K)
            found["post-processing"].append(clock.lap())
        before = median(found["frontend"]) if frontend is not None else 0.0
        found["model"] = [max(0.0, seconds - before) for seconds in found["model"]]  # logits() runs the frontend too, wherever it is
        return {name: seconds for name, seconds in found.items() if seconds}

    def _frontend(self) -> Callable[[NDArray[np.float32]], object] | None:
        try:
            import onnx_ir as ir
        except ImportError:
            return None
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        graph = ir.to_proto(frontend_alone(ir.load(self._path))).SerializeToString()
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        names = {entry.name for entry in session.get_inputs()}

        def run(samples: NDArray[np.float32]) -> object:
            feeds = {"waveform": samples[None], "lengths": np.array([len(samples)])}
            return session.run(None, {name: feeds[name] for name in names})

        return run


def frontend_alone(model: Any) -> Any:
    """The artifact cut where its frontend ends: the nodes that the exporter tagged and that read none of the model's values."""
    graph = model.graph
    inside = set(graph.inputs) | set(graph.initializers.values())
    kept = []
    for node in graph:
        if node.metadata_props.get(PART) == FRONTEND and all(value is None or value in inside for value in node.inputs):
            kept.append(node)
            inside.update(node.outputs)
    made = [value for node in kept for value in node.outputs]
    ends = [value for value in made if any(user not in kept for user, _ in value.uses())]
    graph.outputs[:] = ends
    graph.remove([node for node in graph if node not in kept])
    used = {value for node in kept for value in node.inputs}
    for name in [name for name, value in graph.initializers.items() if value not in used]:
        del graph.initializers[name]
    return model


class _Clock:
    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.perf_counter()
        passed, self._last = now - self._last, now
        return passed


def load(job: Job) -> Model:
    return Model(job)
