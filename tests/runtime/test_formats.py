"""What each format promises, read back by a reader that is not ours."""

import csv
import io
import json
import re
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.errors import AudioNotFound
from stapes.formats import FORMATS, Result
from stapes.predictions import MergedPrediction, Prediction, Segment

WHOLE = Result("a.wav", 1.5, 16000, (Prediction("yes", 0.9, 3), Prediction("_unknown_", 0.0625, 0)))
WINDOWS = Result(
    "b.wav",
    3725.0,
    44100,
    segments=(
        Segment(0.0, 1.0, (Prediction("dog", 1 / 3, 7), Prediction("cat", 0.25, 2))),
        Segment(59.9996, 61.5, (Prediction("dog", 0.875, 7),)),
        Segment(90.0, 91.0, ()),
        Segment(3723.5, 3725.0, (Prediction("cat", 1.0, 2), Prediction("dog", 0.0, 7))),
    ),
)
MERGED = Result("c.wav", 9.0, 16000, segments=(Segment(2.0, 8.5, (MergedPrediction("dog", 0.5, 7, 0.75),)),))
FAILED = Result("gone.wav", error=AudioNotFound("no file gone.wav"))

LINE_BASED = ("table", "csv", "audacity", "raven", "srt", "vtt")
HOSTILE = st.text(st.characters())  # control characters and lone surrogates too
ROWS = [(segment, found) for segment in WINDOWS.timeline for found in segment.predictions]


def written(name: str, *results: Result) -> str:
    out = io.StringIO()
    FORMATS[name].write(results, out)
    return out.getvalue()


def labelled(label: str) -> Result:
    return Result(
        "b.wav", 2.0, 16000, segments=tuple(Segment(at, at + 1, (Prediction(label, 0.5, 0), Prediction("x", 0.25, 1))) for at in (0, 1))
    )


def table_rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


# every format


@pytest.mark.parametrize("name", FORMATS)
def test_a_result_is_flushed_before_the_next_is_asked_for(name: str):
    class Out(io.StringIO):
        flushed = ""

        def flush(self) -> None:
            self.flushed = self.getvalue()

    out = Out()

    def results():
        yield WHOLE
        assert "yes" in out.flushed
        yield MERGED

    FORMATS[name].write(results(), out)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_for_several_clips_names_each(name: str):
    text = written(name, WHOLE, MERGED)
    assert FORMATS[name].many == ("a.wav" in text and "c.wav" in text)


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"json", "jsonl"}))
def test_a_failed_clip_leaves_no_trace_where_errors_have_no_place(name: str):
    assert written(name, FAILED) == written(name)
    assert written(name, WHOLE, FAILED) == written(name, WHOLE)


def test_suffixes_are_those_that_programs_expect():
    assert {name: each.suffix for name, each in FORMATS.items()} == {
        "table": ".txt",
        "json": ".json",
        "jsonl": ".jsonl",
        "csv": ".csv",
        "audacity": ".txt",
        "raven": ".selections.txt",
        "srt": ".srt",
        "vtt": ".vtt",
    }


@pytest.mark.parametrize("name", FORMATS)
@given(label=HOSTILE, path=HOSTILE)
def test_no_text_steers_a_terminal_or_fails_to_encode(name: str, label: str, path: str):
    text = written(name, replace(labelled(label), path=path))
    controls = {char for char in text if unicodedata.category(char) in ("Cc", "Zl", "Zp")}
    assert controls <= ({"\n", "\t"} if name in ("audacity", "raven") else {"\n"})
    text.encode()


@pytest.mark.parametrize("name", LINE_BASED)
@given(label=HOSTILE, path=HOSTILE)
def test_no_text_adds_or_takes_a_line(name: str, label: str, path: str):
    plain = written(name, labelled("label"))
    assert len(written(name, replace(labelled(label), path=path)).splitlines()) == len(plain.splitlines())


def test_ordinary_text_of_any_script_stays_as_it_is():
    label = "Bellen, Gebell & Ünruhe «犬» 🐕"
    for name in set(FORMATS) - {"vtt"}:
        assert label in written(name, labelled(label))


# table


def test_a_whole_clip_in_the_table_has_no_times():
    assert written("table", WHOLE) == "a.wav  (1.50 s)\n  yes          0.9000  ██████████████████\n  _unknown_    0.0625  █\n"


def test_segments_in_the_table_are_aligned():
    path, *lines = written("table", WINDOWS).splitlines()
    assert path == "b.wav  (3725.00 s)"
    assert lines[0] == "     0.00     1.00  dog    0.3333  ███████"
    assert [line.split()[:4] for line in lines] == [
        [f"{segment.start:.2f}", f"{segment.end:.2f}", found.label, f"{found.score:.4f}"] for segment, found in ROWS
    ]
    assert len({line.index(f"{found.score:.4f}") for line, (_, found) in zip(lines, ROWS, strict=True)}) == 1


def test_merged_windows_show_their_mean_and_then_their_highest_score():
    assert written("table", MERGED).splitlines()[1].split()[3:5] == ["0.5000", "0.7500"]


def test_wide_letters_take_two_columns():
    wide, narrow = written("table", Result("a.wav", predictions=(Prediction("犬の声", 0.5, 0), Prediction("narrow", 0.5, 1)))).splitlines()[
        1:
    ]
    assert wide == narrow.replace("narrow", "犬の声")


@given(label=HOSTILE)
def test_any_label_leaves_the_scores_in_the_table(label: str):
    lines = written("table", labelled(label)).splitlines()
    assert [re.search(r"  (\S+)  █+$", line)[1] for line in lines[1:]] == ["0.5000", "0.2500"] * 2


# json and jsonl


def test_json_and_jsonl_hold_the_same_objects_failures_included():
    results = (WHOLE, FAILED, WINDOWS, MERGED)
    objects = [result.to_dict() for result in results]
    assert json.loads(written("json", *results)) == objects
    assert [json.loads(line) for line in written("jsonl", *results).splitlines()] == objects


@pytest.mark.parametrize("results", [(), (FAILED,), (WHOLE, WHOLE)])
def test_json_is_one_list_of_any_length(results: tuple[Result, ...]):
    assert len(json.loads(written("json", *results))) == len(results)


@given(label=HOSTILE, path=HOSTILE)
def test_json_loses_no_character(label: str, path: str):
    result = replace(labelled(label), path=path)
    assert [json.loads(line) for line in written("jsonl", result).splitlines()] == [result.to_dict()]
    assert json.loads(written("json", result)) == [result.to_dict()]


# csv


def test_csv_has_a_row_for_each_label_of_each_segment():
    rows = list(csv.DictReader(io.StringIO(written("csv", WINDOWS))))
    assert [(row["path"], float(row["start"]), float(row["end"]), row["label"], int(row["index"])) for row in rows] == [
        ("b.wav", segment.start, segment.end, found.label, found.index) for segment, found in ROWS
    ]
    assert [float(row["score"]) for row in rows] == [round(found.score, 6) for _, found in ROWS]


def test_csv_columns_are_the_same_merged_or_not():
    whole, _, merged = csv.DictReader(io.StringIO(written("csv", WHOLE, MERGED)))
    assert list(whole) == list(merged) == ["path", "start", "end", "label", "score", "max_score", "index"]
    assert (whole["start"], whole["end"]) == ("0.000000", "1.500000")
    assert (whole["max_score"], merged["max_score"]) == ("", "0.750000")


@given(label=st.text(st.characters(exclude_categories=["C", "Zl", "Zp"])))
def test_csv_quotes_what_its_commas_and_quotes_would_break(label: str):
    assert [row[3] for row in csv.reader(io.StringIO(written("csv", labelled(label))))][1::2] == [label, label]


# audacity and raven


def test_audacity_lines_are_start_end_and_label():
    assert table_rows(written("audacity", WINDOWS)) == [
        [f"{segment.start:.6f}", f"{segment.end:.6f}", found.label] for segment, found in ROWS
    ]


@pytest.mark.parametrize(("name", "columns"), [("audacity", 3), ("raven", 11)])
@given(label=HOSTILE, path=HOSTILE)
def test_any_text_leaves_the_columns(name: str, columns: int, label: str, path: str):
    assert {len(row) for row in table_rows(written(name, replace(labelled(label), path=path)))} == {columns}


def raven_rows(*results: Result) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(written("raven", *results)), delimiter="\t", quoting=csv.QUOTE_NONE))


def test_raven_selections_are_numbered_through_and_name_their_file():
    rows = raven_rows(WHOLE, FAILED, WINDOWS)
    assert [int(row["Selection"]) for row in rows] == list(range(1, 8))
    assert [row["Begin Path"] for row in rows] == ["a.wav"] * 2 + ["b.wav"] * 5
    assert {(row["View"], row["Channel"]) for row in rows} == {("Spectrogram 1", "1")}


def test_raven_selections_span_the_band_that_the_model_hears():
    rows = raven_rows(WHOLE, WINDOWS)
    assert {(row["Begin Path"], float(row["Low Freq (Hz)"]), float(row["High Freq (Hz)"])) for row in rows} == {
        ("a.wav", 0, 8000),
        ("b.wav", 0, 22050),
    }


def test_raven_times_run_on_over_the_files_and_offsets_within_each():
    rows = raven_rows(WHOLE, WINDOWS)[2:]
    for row, (segment, found) in zip(rows, ROWS, strict=True):
        assert float(row["File Offset (s)"]) == pytest.approx(segment.start, abs=1e-6)
        assert float(row["Begin Time (s)"]) == pytest.approx(WHOLE.duration + segment.start, abs=1e-6)
        assert float(row["End Time (s)"]) == pytest.approx(WHOLE.duration + segment.end, abs=1e-6)
        assert (row["Label"], float(row["Score"])) == (found.label, round(found.score, 6))


# srt and vtt


def cues(text: str, point: str) -> list[tuple[float, float, list[str]]]:
    """A reader of subtitles: times in seconds, and the lines beneath them."""
    time = rf"(\d\d):([0-5]\d):([0-5]\d){re.escape(point)}(\d\d\d)"
    found = re.findall(rf"^{time} --> {time}\n((?:.+\n)+)\n", text, re.MULTILINE)
    assert len(found) == text.count(" --> ")
    numbers = [[int(part) for part in cue[:8]] for cue in found]
    seconds = [[3600 * h + 60 * m + s + ms / 1000 for h, m, s, ms in (n[:4], n[4:])] for n in numbers]
    return [(start, end, cue[8].splitlines()) for (start, end), cue in zip(seconds, found, strict=True)]


@pytest.mark.parametrize(("name", "point"), [("srt", ","), ("vtt", ".")])
def test_a_segment_with_labels_is_a_cue(name: str, point: str):
    heard = [segment for segment in WINDOWS.timeline if segment.predictions]
    for (start, end, lines), segment in zip(cues(written(name, WINDOWS), point), heard, strict=True):
        assert (start, end) == (round(segment.start, 3), round(segment.end, 3))
        assert lines == [f"{found.label} {found.score:.2f}" for found in segment.predictions]


@pytest.mark.parametrize(("name", "point"), [("srt", ","), ("vtt", ".")])
@given(seconds=st.floats(0, 359999))
def test_cue_times_are_right_to_the_millisecond(name: str, point: str, seconds: float):
    result = Result("a.wav", seconds, 16000, (Prediction("yes", 1.0, 0),))
    ((start, end, _),) = cues(written(name, result), point)
    assert start == 0
    assert end == pytest.approx(seconds, abs=0.0005001)


def test_srt_cues_are_numbered_from_one():
    assert re.findall(r"^(\d+)\n\d\d:", written("srt", WINDOWS), re.MULTILINE) == ["1", "2", "3"]


def test_vtt_begins_with_its_name_and_a_blank_line():
    assert written("vtt").startswith("WEBVTT\n\n")


@given(label=HOSTILE)
def test_a_label_in_vtt_opens_no_tag_and_forges_no_time(label: str):
    text = written("vtt", labelled(f"<b>&lt; --> {label}"))
    assert "<" not in text
    assert text.count("-->") == 2
    assert not re.search("&(?!amp;|lt;|gt;)", text)
