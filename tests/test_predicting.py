"""`graft predict`: a row for every file, whatever is in it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graft import predicting
from graft.params import ParamsError
from graft.predicting import champion, load_model, predict, to_table
from graft.serving import BATCH, Classifier
from graft.storage import ArtifactError, write_json


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 5), colour).save(buffer, "PNG")
    return buffer.getvalue()


def shares(images: np.ndarray) -> np.ndarray:
    sums = images.sum(axis=(1, 2), dtype=np.float64) + 1
    return sums / sums.sum(axis=1, keepdims=True)


COLOURS = Classifier(("red", "green", "blue"), 8, "stretch", shares, temperature=1.0, abstain_below=0.7)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A red picture, one between green and blue, one that is text, and one that is not there."""
    (tmp_path / "red.png").write_bytes(png("#ff0000"))
    (tmp_path / "teal.png").write_bytes(png("#00ff80"))
    (tmp_path / "note.jpg").write_text("no picture")
    return [tmp_path / name for name in ("red.png", "note.jpg", "teal.png", "none.png")]


def test_every_file_has_an_answer_or_the_reason_why_not_in_order(files: list[Path]) -> None:
    red, note, teal, missing = predict(COLOURS, files)
    assert red.predicted is not None
    assert (red.path, red.predicted[0], red.abstains, red.reason) == (files[0], "red", False, "")
    assert teal.predicted is not None
    assert teal.predicted[0] == "green"
    assert teal.predicted[1] == pytest.approx((255 * 64 + 1) / ((255 + 128) * 64 + 3))  # two thirds: below 0.7
    assert teal.abstains
    assert (note.predicted, note.reason[:13]) == (None, "not-an-image:")
    assert (missing.predicted, missing.reason) == (None, "unreadable: No such file or directory")


def test_rows_stay_with_their_files_over_several_batches(files: list[Path]) -> None:
    many = files * (BATCH // 2)
    answers = list(predict(COLOURS, many))
    assert [answer.path for answer in answers] == many
    assert [answer.predicted and answer.predicted[0] for answer in answers] == ["red", None, "green", None] * (
        BATCH // 2
    )


def test_the_table_says_abstains_with_the_most_probable_class(files: list[Path]) -> None:
    lines = to_table(list(predict(COLOURS, files))).replace(f"{files[0].parent}/", "").splitlines()
    cells = [line.split(maxsplit=2) for line in lines]
    assert cells[0] == ["path", "class", "probability"]
    assert cells[1] == ["red.png", "red", "100.0 %"]
    assert cells[2][:2] == ["note.jpg", "-"]
    assert cells[2][2].startswith("-  not-an-image: the bytes are none of JPEG, PNG")
    assert cells[3] == ["teal.png", "abstains", "66.6 %  most probable: green"]
    assert cells[4][2] == "-  unreadable: No such file or directory"


def test_records_hold_every_probability_and_are_json(files: list[Path]) -> None:
    records = json.loads(json.dumps([answer.as_record() for answer in predict(COLOURS, files)]))
    assert list(records[2]) == ["path", "class", "probability", "abstain", "probabilities"]
    assert list(records[2]["probabilities"]) == ["red", "green", "blue"]
    assert sum(records[2]["probabilities"].values()) == pytest.approx(1)
    assert records[3] == {"path": str(files[3]), "reason": "unreadable: No such file or directory"}


def test_a_model_without_a_threshold_abstains_always_and_says_so(files: list[Path]) -> None:
    never = replace(COLOURS, abstain_below=None)
    assert next(iter(predict(never, files))).abstains
    assert predicting.rule("cnn", never).startswith("cnn abstains always: of no confidence")
    assert not next(iter(predict(replace(COLOURS, abstain_below=0.0), files[2:3]))).abstains
    assert predicting.rule("cnn", COLOURS) == "cnn abstains below 70.0 % of probability"


def test_the_champion_is_the_leaderboards(tmp_path: Path) -> None:
    path = tmp_path / "leaderboard.json"
    write_json(path, [{"model": "cnn", "champion": False}, {"model": "vgg16", "champion": True}])
    assert champion(path) == "vgg16"
    write_json(path, [])
    with pytest.raises(ArtifactError, match="must name a champion"):
        champion(path)


def test_an_unknown_model_is_refused_with_those_there_are(tmp_path: Path) -> None:
    write_json(tmp_path / "cnn" / "classes.json", ["a"])
    (tmp_path / "source" / "vgg16").mkdir(parents=True)
    with pytest.raises(ParamsError, match=r"has no model 'vgg'; it has: cnn; `dvc repro` makes them"):
        load_model("vgg", tmp_path)


def graft(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "graft.cli", "predict", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_command_without_a_leaderboard_is_one_message(tmp_path: Path) -> None:
    done = graft(tmp_path, "a.png")
    assert done.returncode == 1
    assert done.stderr.strip() == "graft: reports/leaderboard.json is missing; `dvc repro` makes it"


@pytest.mark.slow
def test_the_command_answers_with_the_champion_and_returns_one_for_a_bad_file(files: list[Path]) -> None:
    from test_serving import save_network, write_facts

    root = files[0].parent
    save_network(write_facts(root / "models" / "cnn", abstain_below=None))
    write_json(root / "reports" / "leaderboard.json", [{"model": "cnn", "champion": True}])
    done = graft(root, "red.png", "note.jpg", "--abstain-below", "0")
    assert done.returncode == 1, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["path", "red.png", "note.jpg"]
    assert done.stderr.splitlines()[-1] == "cnn abstains below 0.0 % of probability"  # after TensorFlow's own messages
    done = graft(root, "red.png", "--json")
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["abstain"]
    assert list(record["probabilities"]) == ["0", "1", "2"]
