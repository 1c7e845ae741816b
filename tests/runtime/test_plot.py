"""The picture of a clip: what it shows, that it is whole or absent, and that a long clip needs no more memory than a short one."""

import re
import struct
import subprocess
import sys
import tracemalloc
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pytest

from stapes.errors import InvalidOption, MissingExtra
from stapes.predictions import Prediction, Segment

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'stapes[plot]'")

from stapes.plot import COLUMNS, HOP, ROWS, WINDOW, check, draw, spectrogram

RATE = 16000
SVG = "{http://www.w3.org/2000/svg}"


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(samples).astype(np.float32)


def heard(start: float, end: float, *labels: str, score: float = 1.0) -> Segment:
    return Segment(start, end, tuple(Prediction(label, score, index) for index, label in enumerate(labels)))


def texts(path: Path) -> list[str]:
    """The texts of an SVG in the order in which they are drawn."""
    return [element.text or "" for element in xml.etree.ElementTree.parse(path).iter(f"{SVG}text")]


def boxes(path: Path) -> dict[str, tuple[float, float]]:
    """The left and right edges of each bar in the lower axes of an SVG, as fractions of its width, by group."""
    (axes,) = (group for group in xml.etree.ElementTree.parse(path).iter(f"{SVG}g") if group.get("id") == "axes_2")

    def edges(group: xml.etree.ElementTree.Element) -> tuple[float, float]:
        x = [float(number) for number in re.findall(r"[ML] (\S+)", group.find(f"{SVG}path").get("d"))]
        return min(x), max(x)

    left, right = edges(axes.find(f"{SVG}g"))  # its background
    bars = {group.get("id"): edges(group) for group in axes.findall(f"{SVG}g") if "PolyCollection" in group.get("id")}
    return {name: ((first - left) / (right - left), (last - left) / (right - left)) for name, (first, last) in bars.items()}


# the picture


def test_a_png_is_wide_and_as_high_as_its_rows_need(tmp_path: Path):
    draw([noise(RATE)], RATE, [heard(0, 1, "yes", "no", "up", "down", "left", "right")], tmp_path / "a.png", "a.wav")
    data = (tmp_path / "a.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width == 1200
    assert 450 < height < 550


def test_an_svg_holds_title_and_labels_as_text_in_order_of_appearance(tmp_path: Path):
    segments = [heard(0, 1, "dog"), heard(1, 2, "ant", "dog"), heard(2, 3, "cat")]
    draw([noise(3 * RATE)], RATE, segments, tmp_path / "a.svg", "street.wav")
    assert [text for text in texts(tmp_path / "a.svg") if text in ("dog", "ant", "cat")] == ["dog", "ant", "cat"]
    assert "street.wav" in texts(tmp_path / "a.svg")


def test_a_bar_lies_where_its_segment_is(tmp_path: Path):
    draw([noise(10 * RATE)], RATE, [heard(2, 5, "dog"), heard(7, 10, "cat")], tmp_path / "a.svg", "a.wav")
    dog, cat = boxes(tmp_path / "a.svg").values()
    half_a_pixel = 0.5 / 1000
    assert dog == pytest.approx((0.2, 0.5), abs=half_a_pixel)
    assert cat == pytest.approx((0.7, 1.0), abs=half_a_pixel)


def test_the_shortest_segment_of_a_long_clip_still_has_a_bar(tmp_path: Path):
    day = 24 * 3600
    draw([noise(RATE)], RATE, [heard(day / 2, day / 2 + 0.1, "dog"), heard(day - 1, day, "cat")], tmp_path / "a.svg", "a.wav")
    assert all(right - left >= 0.9 / COLUMNS for left, right in boxes(tmp_path / "a.svg").values())


@pytest.mark.parametrize(("labels", "says"), [(ROWS, None), (ROWS + 1, "1 more label"), (ROWS + 9, "9 more labels")])
def test_labels_without_a_row_are_counted(labels: int, says: str | None, tmp_path: Path):
    draw([noise(RATE)], RATE, [heard(0, 1, *(f"label {n}" for n in range(labels)))], tmp_path / "a.svg", "a.wav")
    shown = texts(tmp_path / "a.svg")
    assert sum(text.startswith("label ") for text in shown) == ROWS
    assert [text for text in shown if " more label" in text] == ([says] if says else [])


@pytest.mark.parametrize(("seconds", "unit"), [(60, "seconds"), (61, "minutes:seconds"), (3601, "hours:minutes")])
def test_the_unit_of_time_fits_the_clip(seconds: int, unit: str, tmp_path: Path):
    draw([noise(1000)] * seconds, 1000, [], tmp_path / "a.svg", "a.wav")
    assert unit in texts(tmp_path / "a.svg")


@pytest.mark.parametrize("label", ["狗叫声", "$x^ \\frac", "a\tb\x1b[31m\x00\ufffe\ud800", "<b>&", "عَرَبِيّ", "", "long " * 100])
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_any_label_can_be_drawn_without_a_warning(suffix: str, label: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    out = tmp_path / f"a{suffix}"
    draw([noise(RATE)], RATE, [heard(0, 1, label)], out, f"{label}.wav")
    assert capfd.readouterr().err == ""
    if suffix == ".svg":
        assert texts(out)


@pytest.mark.parametrize("scores", [(-3.0, 7.5), (0.0, 0.0)])
def test_scores_need_not_be_probabilities(scores: tuple[float, ...], tmp_path: Path):
    segments = [heard(at, at + 1, "dog", score=score) for at, score in enumerate(scores)]
    draw([noise(2 * RATE)], RATE, segments, tmp_path / "a.png", "a.wav")
    assert (tmp_path / "a.png").is_file()


@pytest.mark.parametrize("samples", [0, 1, HOP - 1, HOP, HOP + 1, WINDOW - 1, WINDOW, WINDOW + 1])
def test_short_and_silent_clips_have_a_picture(samples: int, tmp_path: Path):
    draw([np.zeros(samples, np.float32)], RATE, [], tmp_path / "a.png", "a.wav")
    assert (tmp_path / "a.png").is_file()


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_picture_is_the_same_file(suffix: str, tmp_path: Path):
    for name in ("a", "b"):
        draw([noise(RATE)], RATE, [heard(0, 1, "dog")], tmp_path / f"{name}{suffix}", "a.wav")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


# the spectrogram


@pytest.mark.parametrize("hz", [500, 1000, 6000])
def test_a_tone_is_loudest_at_its_frequency(hz: int):
    found = spectrogram([np.sin(2 * np.pi * hz * np.arange(RATE) / RATE).astype(np.float32)])
    assert set(found.power[:, 1:-1].argmax(0)) == {hz * WINDOW // RATE}


def test_a_click_is_in_the_column_of_its_time():
    clip = np.zeros(100 * HOP, np.float32)
    clip[40 * HOP + HOP // 2] = 1
    assert spectrogram([clip]).power.sum(0).argmax() == 40


def test_power_obeys_parseval():
    clip = noise(WINDOW + HOP)
    power = spectrogram([clip]).power[:, 1]  # its window begins half a hop before the second hop
    weights = np.r_[1, np.full(WINDOW // 2 - 1, 2), 1]  # the spectrum of real samples is symmetric
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    start = HOP - (WINDOW - HOP) // 2
    assert weights @ power == pytest.approx(WINDOW * np.sum((clip[start : start + WINDOW] * hann) ** 2), rel=1e-9)


@pytest.mark.parametrize("size", [1, 100, HOP, 5000])
def test_the_blocks_lengths_change_nothing(size: int):
    clip = noise(20_000)
    whole, cut = spectrogram([clip]), spectrogram(np.split(clip, range(size, len(clip), size)))
    assert (whole.column, whole.samples) == (cut.column, cut.samples)
    np.testing.assert_allclose(cut.power, whole.power, rtol=1e-9)


@pytest.mark.parametrize("hops", [COLUMNS, COLUMNS + 1, 2 * COLUMNS + 1, 5 * COLUMNS])
def test_merged_columns_keep_the_clips_power(hops: int):
    block = noise(HOP * 10)
    found = spectrogram([block] * (hops // 10) + [block[: hops % 10 * HOP]])
    columns = found.power.shape[1]
    merged = found.column // HOP
    assert COLUMNS // 2 <= columns <= COLUMNS
    assert merged * (columns - 1) < hops <= merged * columns
    counts = np.full(columns, merged)
    counts[-1] = hops - merged * (columns - 1)
    inner = (found.power @ counts).sum() / hops
    few = spectrogram([block] * 20).power.mean(1).sum()
    assert inner == pytest.approx(few, rel=0.01)  # the clip's edges, a hop of 200, have less


def test_an_hour_needs_no_more_memory_than_its_picture(tmp_path: Path):
    block = noise(RATE * 10)
    draw([block], RATE, [], tmp_path / "a.png", "a.wav")  # imports and caches
    tracemalloc.start()
    try:
        draw((block.copy() for _ in range(360)), RATE, [heard(at, at + 1, "dog") for at in range(3600)], tmp_path / "a.png", "a.wav")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64e6  # the samples alone are 230e6


# what is refused


@pytest.mark.parametrize("name", ["picture.jpg", "picture", "png"])
def test_other_suffixes_are_refused(name: str, tmp_path: Path):
    with pytest.raises(InvalidOption, match=r"ends in \.png or \.svg"):
        draw([noise(RATE)], RATE, [], tmp_path / name, "a.wav")


def test_a_missing_folder_is_refused_before_the_work(tmp_path: Path):
    with pytest.raises(InvalidOption, match="there is no folder"):
        check(tmp_path / "gone" / "a.png")


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # importing it fails
    with pytest.raises(MissingExtra, match=r"pip install 'stapes\[plot\]'"):
        check(tmp_path / "a.png")


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path: Path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(InvalidOption, match="cannot write"):
        draw([noise(RATE)], RATE, [], tmp_path / "a.png", "a.wav")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_importing_the_module_imports_no_matplotlib():
    code = "import sys; sys.modules['matplotlib'] = None; import stapes.plot"  # None there: importing it fails
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""
