"""The original: transformers.pipeline on torch, in float32 (the reference of every answer) or bfloat16."""

from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from stapes_bench.peers import Job

PACKAGES = ("transformers", "torch", "numpy")
INSTALLED = (("transformers", "torch"), ())


class Model:
    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job.threads)
        torch.set_num_interop_threads(1)
        dtype = torch.bfloat16 if job.variant == "bf16" else torch.float32
        self._pipe: Any = transformers.pipeline("audio-classification", model=job.checkpoint, device="cpu", dtype=dtype)
        self._rate = job.rate
        self._index: dict[str, int] = self._pipe.model.config.label2id

    def logits(self, clips: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        rows = np.empty((len(clips), len(self._index)), np.float32)
        for row, answer in zip(rows, self._run(clips, top_k=len(self._index), function_to_apply="none"), strict=True):
            for each in answer:
                row[self._index[each["label"]]] = each["score"]
        return rows

    def scores(self, clips: list[NDArray[np.float32]]) -> object:
        return self._run(clips)

    def _run(self, clips: list[NDArray[np.float32]], **options: object) -> list[list[dict[str, Any]]]:
        inputs = [{"raw": clip, "sampling_rate": self._rate} for clip in clips]
        if len(inputs) == 1:
            return [self._pipe(inputs[0], **options)]
        found: list[list[dict[str, Any]]] = self._pipe(inputs, batch_size=len(inputs), **options)
        return found


def load(job: Job) -> Model:
    return Model(job)
