"""Tables, CSV and JSON of answers, line by line."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from graft.answer_files import FormatError, choose_format, csv_lines, json_lines, table_lines, write_answers
from graft.predicting import Answer
from graft.serving import BATCH

CLASSES = ("ant", "bee")


def sure(path: str) -> Answer:
    return Answer(Path(path), {"ant": 0.125, "bee": 0.875})


ANSWERS = [
    sure("a.png"),
    Answer(Path("photos/b.png"), {"ant": 0.5, "bee": 0.5}, abstains=True),
    Answer(Path("c.txt"), None, reason="not-an-image: the bytes are none"),
]


def test_a_table_has_columns_as_wide_as_the_first_rows_need() -> None:
    assert list(table_lines(ANSWERS, CLASSES)) == [
        "path          class     probability",
        "a.png         bee            87.5 %",
        "photos/b.png  abstains       50.0 %  most probable: ant",
        "c.txt         -                   -  not-an-image: the bytes are none",
    ]


def test_a_table_starts_before_the_last_answer_is_there() -> None:
    def endless() -> Iterator[Answer]:
        while True:
            yield sure("a.png")

    lines = table_lines(endless(), CLASSES)
    assert [next(lines) for _ in range(3)][2] == "a.png  bee         87.5 %"


def test_a_long_name_after_the_first_rows_moves_its_own_row_alone() -> None:
    lines = list(table_lines([sure("a.png")] * BATCH + [sure("much-longer.png"), sure("a.png")], CLASSES))
    assert lines[-2:] == ["much-longer.png  bee         87.5 %", "a.png  bee         87.5 %"]


def test_csv_has_the_facts_and_a_column_for_each_class() -> None:
    rows = list(csv.reader(io.StringIO("\n".join(csv_lines(ANSWERS, CLASSES)))))
    assert rows == [
        ["path", "class", "probability", "abstain", "reason", "p:ant", "p:bee"],
        ["a.png", "bee", "0.875", "false", "", "0.125", "0.875"],
        ["photos/b.png", "ant", "0.5", "true", "", "0.5", "0.5"],
        ["c.txt", "", "", "", "not-an-image: the bytes are none", "", ""],
    ]


def test_every_row_of_csv_has_as_many_cells_and_awkward_names_stay_whole() -> None:
    names = ['a,"b".png', "line\nbreak.png", "caf\udce9.png"]
    rows = list(csv.reader(io.StringIO("\n".join(csv_lines(map(sure, names), CLASSES)))))
    assert {len(row) for row in rows} == {7}
    assert [row[0] for row in rows[1:]] == ['a,"b".png', r"line\nbreak.png", r"caf\xe9.png"]


def test_a_line_break_and_a_backslash_before_an_n_differ() -> None:
    rows = list(csv.reader(io.StringIO("\n".join(csv_lines(map(sure, ["a\nb.png", r"a\nb.png"]), CLASSES)))))
    assert [row[0] for row in rows[1:]] == [r"a\nb.png", r"a\\nb.png"]
    (record,) = json.loads("".join(json_lines([sure(r"a\nb.png")], CLASSES)))
    assert record["path"] == r"a\\nb.png"


def test_no_path_is_a_formula_of_a_spreadsheet() -> None:
    names = ["=1+1.png", "+a.png", "-b.png", "@c.png", "a=b.png", "/=d.png"]
    rows = list(csv.reader(io.StringIO("\n".join(csv_lines(map(sure, names), CLASSES)))))
    assert [row[0] for row in rows[1:]] == ["./=1+1.png", "./+a.png", "./-b.png", "./@c.png", "a=b.png", "/=d.png"]


def test_json_is_what_one_dump_of_all_records_would_be() -> None:
    records = [
        {
            **{"path": "a.png", "class": "bee", "probability": 0.875, "abstain": False},
            "probabilities": {"ant": 0.125, "bee": 0.875},
        },
        {
            **{"path": "photos/b.png", "class": "ant", "probability": 0.5, "abstain": True},
            "probabilities": {"ant": 0.5, "bee": 0.5},
        },
        {"path": "c.txt", "reason": "not-an-image: the bytes are none"},
    ]
    assert "\n".join(json_lines(ANSWERS, CLASSES)) == json.dumps(records, indent=2)
    assert json.loads("".join(json_lines([], CLASSES))) == []


@pytest.mark.parametrize(
    ("asked", "out", "expected"),
    [
        *((None, None, "table"), ("csv", None, "csv"), (None, "a.csv", "csv"), (None, "A.JSON", "json")),
        *((None, "a.txt", "table"), ("json", "a.json", "json")),
    ],
)
def test_the_format_is_what_is_asked_for_or_what_the_file_is_called(
    asked: str | None, out: str | None, expected: str
) -> None:
    assert choose_format(asked, out and Path(out)) == expected


@pytest.mark.parametrize(
    ("asked", "out", "message"),
    [
        ("xml", None, "the format must be one of table, csv, json, received xml"),
        (None, "a.xlsx", "must end with .txt, .csv, .json, received a.xlsx"),
        ("json", "a.csv", "a.csv is the name of a csv file, but json is asked for"),
    ],
)
def test_an_unknown_format_or_two_are_refused(asked: str | None, out: str | None, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        choose_format(asked, out and Path(out))


def test_a_folder_is_refused_as_the_file_of_answers(tmp_path: Path) -> None:
    (tmp_path / "answers.csv").mkdir()
    for folder in (tmp_path, tmp_path / "answers.csv"):
        with pytest.raises(FormatError, match=f"^the answers must go to a file, received the folder {folder}$"):
            choose_format(None, folder)


def test_rows_go_to_the_terminal_or_to_a_file_and_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = write_answers(iter(ANSWERS), 3, CLASSES, "csv", None)
    shown = capsys.readouterr()
    assert (written.images, written.unread) == (3, 1)
    assert written.summary() == "3 images, 1 could not be read"
    assert shown.err == ""  # a bar is for terminals
    out = tmp_path / "new" / "answers.csv"
    assert write_answers(iter(ANSWERS[:1]), 1, CLASSES, "csv", out).summary() == "1 image, 0 could not be read"
    assert out.read_text() == "".join(shown.out.splitlines(keepends=True)[:2])


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Answer]:
        yield ANSWERS[0]
        raise KeyboardInterrupt

    out = tmp_path / "answers.json"
    with pytest.raises(KeyboardInterrupt):
        write_answers(interrupted(), 3, CLASSES, "json", out)
    assert list(tmp_path.iterdir()) == []
