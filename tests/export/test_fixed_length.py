"""Models that cut their input at a fixed length: what is dropped is told, and windows keep it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.mark.parametrize(
    ("model_type", "options", "seconds"),
    [("audio-spectrogram-transformer", {}, 0.62), ("whisper", {}, 30.0)],  # 60 frames every 10 ms, and Whisper's own
    ids=["ast", "whisper"],
)
def test_dropped_sound_is_told_on_stderr_and_the_named_flag_keeps_it(
    model_type: str, options: dict, seconds: float, exported, stapes_command, tmp_path: Path
):
    clip = tmp_path / "clip.wav"
    noise = 0.1 * np.random.default_rng(0).standard_normal(round((seconds + 0.5) * 16000))
    soundfile.write(clip, noise, 16000, subtype="FLOAT")
    arguments = ("classify", clip, "-m", exported("fp32", model_type, **options), "--device", "cpu", "--format", "json")
    done = stapes_command(*arguments)
    assert done.returncode == 0
    (warning,) = done.stderr.splitlines()
    flag = re.search(r"dropped.*(--window) ([\d.]+)$", warning)
    assert flag, warning
    assert abs(float(flag[2]) - seconds) < 0.02
    done = stapes_command(*arguments, *flag.groups())
    assert (done.returncode, done.stderr) == (0, "")
    (heard,) = json.loads(done.stdout)
    assert heard["segments"][0]["start"] == 0
    assert heard["segments"][-1]["end"] == pytest.approx(seconds + 0.5, abs=1e-3)
