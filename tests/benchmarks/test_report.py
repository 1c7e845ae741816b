"""Records there and back; tables, page and picture from records that were never measured."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from stapes.errors import InvalidInput
from stapes_bench import page, picture, records, report
from stapes_bench.records import Answers, Cold, Contender, Failed, Record, Run, Stages, Times

HOST = {"cpu": "a <CPU> & more", "flags": ["avx2"], "cores": 2, "system": "Linux x86_64", "python": "3.12.0", "versions": {}}
RUN = Run("a & b", "transformers", HOST, "made")


def answers(name: str, agrees: bool = True, noise: float = 0.01, **case: float) -> Answers:
    fields = {"seconds": 1.0, "threads": 1, "batch": 1} | case
    why = "" if agrees else "noise 0.9, top label 2/8"
    return Answers(name, fields["seconds"], int(fields["threads"]), int(fields["batch"]), agrees, why, 8, 8 if agrees else 2, noise, 0.001)


FOUND: list[Record] = [
    RUN,
    Contender("transformers", "the original", False, {"torch": "1"}, 900.0, 380.0),
    Contender("stapes int8", "stapes, model-int8.onnx", True, {"stapes": "1"}, 140.0, 96.0),
    Contender("openvino-int8", "wrong", False, {"openvino": "1"}, 300.0, 95.0),
    Contender("optimum", "not here", False, {}, absent="optimum is not installed"),
    Contender("openvino", "it stops", False, {"openvino": "1"}, 300.0, 380.0),
    Cold("transformers", 1.0, 1, 0, {"process": 0.1, "import": 3.0, "load": 0.7, "first answer": 0.2}, 900.0),
    Cold("stapes int8", 1.0, 1, 0, {"process": 0.1, "import": 0.1, "load": 0.15, "first answer": 0.05}, 200.0),
    answers("transformers", noise=0.0),
    answers("stapes int8"),
    answers("openvino-int8", agrees=False, noise=0.9),
    answers("openvino"),
    Times("transformers", 1.0, 1, 1, 0, [0.2, 0.3]),
    Times("stapes int8", 1.0, 1, 1, 0, [0.05, 0.07]),
    Failed("openvino", 1.0, 1, 1, "its process ended"),
    Times("transformers", 1.0, 1, 1, 1, [0.4]),
    Times("stapes int8", 1.0, 1, 1, 1, [0.04]),
    Stages("stapes int8", 1.0, 1, {"decode": [0.001], "resample": [0.002], "model": [0.04, 0.05, 0.06]}),
]


@pytest.mark.parametrize("record", FOUND, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_from_its_line(record: Record):
    line = records.to_line(record)
    assert "\n" not in line
    assert records.from_line(line) == record


def test_what_is_no_number_is_null_in_json_and_comes_back():
    line = records.to_line(answers("x", agrees=False, noise=math.nan))
    assert '"noise": null' in line
    back = records.from_line(line)
    assert isinstance(back, Answers)
    assert math.isnan(back.noise)


@pytest.mark.parametrize("line", ["{}", "[]", '{"kind": "run"}', '{"kind": "times", "more": 1}', '{"kind": "nothing"}', "no json"])
def test_another_line_is_refused(line: str, tmp_path: Path):
    with pytest.raises(ValueError, match=r"."):
        records.from_line(line)
    (tmp_path / "file").write_text(f"{records.to_line(RUN)}\n{line}\n")
    with pytest.raises(InvalidInput, match="is no file of stapes bench --json"):
        records.read(tmp_path / "file")


def test_a_file_that_does_not_begin_with_a_run_is_refused(tmp_path: Path):
    for text in ("", f"{records.to_line(FOUND[1])}\n"):
        (tmp_path / "file").write_text(text)
        with pytest.raises(InvalidInput, match="does not begin with a run"):
            records.read(tmp_path / "file")


def test_every_contender_has_its_row_with_a_speed_or_a_reason():
    rows = {row.name: row for row in report.rows(FOUND)}
    assert set(rows) == {record.name for record in FOUND if isinstance(record, Contender)}
    assert rows["transformers"].figures.p50 == 0.3
    assert rows["transformers"].ratio == 1
    assert rows["stapes int8"].ratio == pytest.approx(0.3 / 0.05)
    assert rows["stapes int8"].real_time == pytest.approx(20)
    assert rows["openvino-int8"].why == "answers differ (noise 0.9, top label 2/8)"
    assert rows["optimum"].why == "optimum is not installed"
    assert rows["openvino"].why == "its process ended"
    assert [row.name for row in report.rows(FOUND)][:2] == ["stapes int8", "transformers"]


def test_a_wrong_answer_has_no_speed_even_where_one_was_recorded():
    rows = report.rows([*FOUND, Times("openvino-int8", 1.0, 1, 1, 0, [0.001])])
    (wrong,) = [row for row in rows if row.name == "openvino-int8"]
    assert wrong.figures is None
    assert wrong.ratio is None


def test_a_contender_that_agrees_and_was_not_timed_says_so():
    (row,) = [row for row in report.rows([record for record in FOUND if not isinstance(record, Times | Failed)]) if row.name == "openvino"]
    assert row.why == "not timed"


def test_one_that_does_not_load_says_why_in_every_case():
    found = [record for record in FOUND if getattr(record, "name", "") != "openvino" or isinstance(record, Contender)]
    (row,) = [row for row in report.rows([*found, Failed("openvino", 0.0, 1, 0, "no memory")]) if row.name == "openvino"]
    assert row.why == "no memory"


def test_cold_starts_are_the_sum_of_their_parts():
    found = {start.name: start for start in report.starts(FOUND)}
    assert found["transformers"].total.p50 == pytest.approx(4.0)
    assert found["stapes int8"].ratio == pytest.approx(10)
    assert found["optimum"].why == "optimum is not installed"


def test_the_table_says_all_of_it():
    text = report.table(FOUND)
    for said in (
        "6.00",
        "answers differ (noise 0.9, top label 2/8)",
        "optimum is not installed",
        "its process ended",
        "1 s, 1 thread, batch 1",
    ):
        assert said in text
    assert text.endswith("openvino: it stops (openvino 1)\n")
    assert re.search(r"stapes int8 +50\.0 ", text)
    assert re.search(r"stapes int8, 1 s, 1 thread +1\.00 +2\.00 +50\.0\n", text)


class Page(HTMLParser):
    """Which tags and addresses a page has, and whether its tags close."""

    VOID = frozenset({"meta", "rect", "line", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href", "data", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing():
    text = page.page(FOUND)
    parsed = Page()
    parsed.feed(text)
    assert not parsed.open
    assert not parsed.addresses
    assert not {"script", "link", "img", "iframe"} & set(parsed.tags)
    assert "url(" not in text
    assert "@import" not in text
    assert "://" not in text
    assert parsed.tags.count("svg") == 2
    assert "a &lt;CPU&gt; &amp; more" in text  # what strangers' files say is text
    assert "<CPU>" not in text
    for said in ("answers differ (noise 0.9, top label 2/8)", "optimum is not installed", "(6.0x)", "(10.0x)"):
        assert said in text


def test_bars_of_the_page_are_as_long_as_their_medians():
    widths = [float(width) for width in re.findall(r'<rect class="(?:own|other)" x="\d+" y="\d+" width="([\d.]+)"', page.page(FOUND))]
    assert widths[1] / widths[0] == pytest.approx(0.3 / 0.05, rel=0.01)


def test_the_picture_is_a_png_and_the_same_twice():
    first, second = picture.png(FOUND), picture.png(FOUND)
    assert first.startswith(b"\x89PNG\r\n\x1a\n")
    assert first == second


def chosen(**changes: object) -> str:
    run = replace(RUN, reference="stapes fp32")
    found: list[Record] = [
        run,
        Contender("stapes fp32", "stapes, m-fp32.onnx", True, {}),
        replace(Contender("stapes int8", "stapes, m-int8.onnx", True, {}), **changes.get("int8", {})),
    ]
    for name, seconds in (("stapes fp32", 0.2), ("stapes int8", changes.get("took", 0.05))):
        for length in (1.0, 10.0):
            agrees = name == "stapes fp32" or changes.get("agrees", True) or length == 1.0
            found += [answers(name, agrees, seconds=length)]
            found += [Times(name, length, 1, 1, 0, [seconds])] if agrees else []
    return report.choice(found)


def test_the_fastest_that_agrees_is_chosen():
    assert chosen().startswith("deploy m-int8.onnx (stapes int8): 4.00 times as fast as stapes fp32 over 2 cases")


def test_one_that_is_slower_is_not_chosen():
    assert chosen(took=0.3).startswith("deploy m-fp32.onnx (stapes fp32): none of the others is faster")


def test_one_that_differs_at_one_length_is_not_chosen_and_the_reason_is_said():
    said = chosen(agrees=False)
    assert said.startswith("deploy m-fp32.onnx")
    assert "stapes int8: answers differ (noise 0.9, top label 2/8) at 10 s" in said


def test_one_whose_needs_this_cpu_lacks_is_not_chosen():
    said = chosen(int8={"needs_met": False})
    assert said.startswith("deploy m-fp32.onnx")
    assert "stapes int8 needs what this CPU lacks" in said
