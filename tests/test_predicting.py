"""`graft predict`: a row for every file, whatever is in it."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from peak_memory import growth
from PIL import Image

from graft import predicting
from graft.answer_files import FormatError
from graft.commands import models
from graft.image_paths import NoFileError
from graft.operation_sections import Serve
from graft.params import ParamsError
from graft.predicting import champion, load_model, predict
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
LIMITS = Serve(port=5001, max_request_mb=1, max_images=1, max_image_mb=0.001, max_pixels=100)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A red picture, one between green and blue, one that is text, and one that is not there."""
    (tmp_path / "red.png").write_bytes(png("#ff0000"))
    (tmp_path / "teal.png").write_bytes(png("#00ff80"))
    (tmp_path / "note.jpg").write_text("no picture")
    return [tmp_path / name for name in ("red.png", "note.jpg", "teal.png", "none.png")]


def test_every_file_has_an_answer_or_the_reason_why_not_in_order(files: list[Path]) -> None:
    red, note, teal, missing = predict(COLOURS, files, LIMITS)
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
    answers = list(predict(COLOURS, many, LIMITS))
    assert [answer.path for answer in answers] == many
    assert [answer.predicted and answer.predicted[0] for answer in answers] == ["red", None, "green", None] * (
        BATCH // 2
    )


def test_what_is_above_a_limit_is_not_read(tmp_path: Path) -> None:
    small, wide, long = (tmp_path / f"{name}.png" for name in ("small", "wide", "long"))
    small.write_bytes(png("red"))
    Image.new("RGB", (101, 1)).save(wide)
    long.write_bytes(png("red") + bytes(1000))
    first, *others = predict(COLOURS, [small, wide, long], LIMITS)
    assert first.reason == ""
    assert [answer.reason for answer in others] == [
        "too-large: 101 x 1 px are more than 100 pixels",
        f"too-large: the file has {long.stat().st_size:,} bytes; serve.max_image_mb allows 0.001 MB",
    ]


def test_what_is_no_regular_file_has_a_reason_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    answers = predict(COLOURS, [tmp_path, tmp_path / "pipe.png", tmp_path / "loop.png"], LIMITS)
    assert [answer.reason for answer in answers] == [
        *["unreadable: not a regular file"] * 2,
        "unreadable: Too many levels of symbolic links",
    ]


def test_the_model_sees_batches_of_one_shape(files: list[Path]) -> None:
    shapes = []

    def apply(images: np.ndarray) -> np.ndarray:
        shapes.append(images.shape)
        return shares(images)

    watched = replace(COLOURS, apply=apply)
    assert len(list(predict(watched, files * 40, LIMITS))) == 160  # half of them are no pictures
    assert set(shapes) == {(BATCH, 8, 8, 3)}
    shapes.clear()
    assert len(list(predict(watched, files, LIMITS))) == 4
    assert shapes == [(4, 8, 8, 3)]  # a few images do not cost the time of a whole batch


def test_paths_are_taken_as_they_are_needed(files: list[Path]) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield files[0]

    answers = predict(COLOURS, endless(), LIMITS)
    for _ in range(3 * BATCH):
        next(answers)
    answers.close()
    assert taken <= (3 + predicting.AHEAD) * BATCH


MEMORY = """
import numpy as np
from pathlib import Path
from test_predicting import COLOURS, LIMITS
from graft.predicting import predict
from dataclasses import replace
large = replace(COLOURS, image_size=128, apply=lambda images: np.ones((len(images), 3)) / 3)
def run(count):
    return sum(1 for _ in predict(large, (Path({path!r}) for _ in range(count)), LIMITS))
run(500)
before = peak()
assert run({count}) == {count}
"""


def test_memory_does_not_grow_with_the_number_of_images(files: list[Path]) -> None:
    grown, _ = growth(MEMORY.format(path=str(files[0]), count=4_000))
    assert grown < 20_000  # KiB; the pixels of all would take 192,000


def test_a_model_without_a_threshold_abstains_always_and_says_so(files: list[Path]) -> None:
    never = replace(COLOURS, abstain_below=None)
    assert next(iter(predict(never, files, LIMITS))).abstains
    assert predicting.rule("cnn", never).startswith("cnn abstains always: of no confidence")
    assert not next(iter(predict(replace(COLOURS, abstain_below=0.0), files[2:3], LIMITS))).abstains
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
    write_json(tmp_path.parent / "other" / "classes.json", ["a"])
    for name in ("vgg", "../other", str(tmp_path / "cnn"), "source", ""):
        with pytest.raises(ParamsError, match=rf"has no model '{name}'; it has: cnn; `dvc repro` makes them"):
            load_model(name, tmp_path)


def graft(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "graft.cli", "predict", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_command_without_a_leaderboard_is_one_message(files: list[Path]) -> None:
    done = graft(files[0].parent, "red.png")
    assert (done.returncode, done.stderr) == (1, "graft: reports/leaderboard.json is missing; `dvc repro` makes it\n")


def test_names_and_formats_are_checked_before_a_model_is_loaded(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files[0].parent)
    with pytest.raises(NoFileError, match=r"^a.png does not exist; \*.webp matches no file$"):
        models.predict(["a.png", "*.webp", "red.png"])
    with pytest.raises(FormatError, match=r"^the name of the file of answers must end with .txt, .csv, .json"):
        models.predict(["red.png"], out=Path("answers.xlsx"))


ENDLESS = """
import sys, time
from pathlib import Path
from graft import answer_files, predicting
from graft.commands import models
from test_predicting import COLOURS
def answers(*_):
    yield predicting.Answer(Path("a.png"), {"red": 1.0})
    print("working", flush=True)
    time.sleep(60)
predicting.load_model = lambda *_: COLOURS
predicting.predict = answers
models.predict(["red.png"], model="colours", out=Path("new/answers.csv"))
"""


def test_a_signal_leaves_no_part_of_the_file(files: list[Path]) -> None:
    root = files[0].parent
    shutil.copy(Path(__file__).parents[1] / "params.yaml", root)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"working\n"
    assert len(list((root / "new").iterdir())) == 1
    process.terminate()
    _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + 15
    assert b"Traceback" not in said
    assert list((root / "new").iterdir()) == []


@pytest.mark.slow
def test_the_command_answers_with_the_champion_and_returns_one_for_a_bad_file(files: list[Path]) -> None:
    from tiny_models import save_network, write_facts

    root = files[0].parent
    save_network(write_facts(root / "models" / "cnn"))
    write_json(root / "reports" / "leaderboard.json", [{"model": "cnn", "champion": True}])
    shutil.copy(Path(__file__).parents[1] / "params.yaml", root)
    done = graft(root, "red.png", "note.jpg", "--abstain-below", "0")
    assert done.returncode == 1, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["path", "red.png", "note.jpg"]
    assert done.stderr.splitlines()[-2:] == [  # after TensorFlow's own messages
        "cnn abstains below 0.0 % of probability",
        "2 images, 1 could not be read",
    ]
    done = graft(root, "red.png", "--json")
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert list(record["probabilities"]) == ["0", "1", "2"]
    done = graft(root, "*.png", "--out", "answers.csv")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert [row.split(",")[0] for row in (root / "answers.csv").read_text().splitlines()] == [
        *("path", "red.png", "teal.png")
    ]
