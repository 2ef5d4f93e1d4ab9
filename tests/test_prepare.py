import hashlib
import io
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bad_images import bad_images
from odd_images import odd_images
from PIL import Image

from graft import collection, embedded, images, shards, sources
from graft.artifacts import MANIFEST_COLUMNS, SPLITS, read_images, read_manifest
from graft.attributes import read_attributes
from graft.records import Record, SourceError
from graft.scanning import NO_TABLE
from graft.sections import Data, NearDuplicates
from graft.splits import SplitError
from graft.stages import prepare

PROJECT = Path(__file__).resolve().parents[1]


def settings(**changes):
    values = {
        "source": "folder",
        "path": "photos",
        "table": NO_TABLE,
        "image_size": 8,
        "resize": "stretch",
        "min_side": 8,
        "max_pixels": 50_000_000,
        "max_invalid_fraction": 1.0,
        "near_duplicates": NearDuplicates(distance=6, correlation=0.992),
        "split": "stratified",
        "validation": 0.25,
        "test": 0.25,
        "folds": 4,
        "fold": 0,
        "train_per_class": None,
    }
    return Data(**values | changes)


@pytest.fixture
def run(tmp_path):
    """Prepare with these settings; returns the manifest, its images and the two reports."""

    def prepared(seed=1, name="run", **changes):
        out, report = tmp_path / name / "prepared", tmp_path / name / "report"
        prepare.run(settings(**changes), seed, out, report)
        manifest = read_manifest(out)
        stored = read_images(out, manifest.rows)[:]
        return manifest, stored, pd.read_csv(report / "quarantine.csv"), pd.read_csv(report / "counts.csv")

    return prepared


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def split_by_id(manifest):
    return manifest.rows.set_index("image_id")["split"].to_dict()


def test_every_image_of_a_folder_stands_beside_its_row(run, image_folder):
    manifest, stored, quarantine, counts = run(path=image_folder)
    rows = manifest.rows
    assert tuple(rows.columns) == MANIFEST_COLUMNS
    assert manifest.classes == ("ants", "bees", "wasps")
    assert rows["image_id"].is_monotonic_increasing
    assert sorted(rows["source"]) == sorted(
        path.relative_to(image_folder).as_posix() for path in image_folder.glob("*/*")
    )
    for row, image in zip(rows.itertuples(), stored, strict=True):
        content = (image_folder / row.source).read_bytes()
        assert row.image_id == hashlib.sha256(content).hexdigest()
        assert row.label == row.source.split("/")[0]
        np.testing.assert_array_equal(image, images.resize(images.decode(content), 8, "stretch"))
    assert (rows["width"] == 12).all()
    assert (rows["height"] == 10).all()
    assert quarantine.empty
    assert quarantine.columns.tolist() == ["source", "label", "reason", "detail"]
    assert counts.to_dict("list") == {
        "label": ["ants", "bees", "wasps"],
        "train": [4, 4, 4],
        "validation": [2, 2, 2],
        "test": [2, 2, 2],
        "unused": [0, 0, 0],
        "quarantined": [0, 0, 0],
    }


def test_digits_are_split_as_params_yaml_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(PROJECT)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setattr(prepare, "run_key", lambda stage, root: stage)
    prepare.main(tmp_path / "prepared", tmp_path / "report")
    manifest = read_manifest(tmp_path / "prepared")
    stored = read_images(tmp_path / "prepared", manifest.rows)
    records = {hashlib.sha256(record.content).hexdigest(): record for record in embedded.digits()}
    assert stored.row_shape == (32, 32, 3)
    for row, image in zip(manifest.rows.itertuples(), stored[:], strict=True):
        record = records[row.image_id]
        assert (row.label, row.source, row.width, row.height) == (record.label, record.source, 8, 8)
        np.testing.assert_array_equal(image, images.resize(images.decode(record.content), 32, "stretch"))
    assert manifest.rows["split"].value_counts().to_dict() == {"train": 200, "validation": 359, "test": 359}
    assert not (tmp_path / ".work" / "prepare").exists()
    assert capsys.readouterr().out == (
        "prepare: 1,797 images of 10 classes: 200 train, 359 validation, 359 test; 0 quarantined, 879 unused\n"
    )


def test_equal_inputs_give_equal_bytes(run, tmp_path, image_folder):
    run(path=image_folder, name="one")
    run(path=image_folder, name="two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_another_seed_gives_another_split(run, image_folder):
    assert split_by_id(run(path=image_folder)[0]) != split_by_id(run(path=image_folder, seed=2)[0])


def test_the_split_of_an_image_does_not_depend_on_its_files_name(run, image_folder):
    before = split_by_id(run(path=image_folder)[0])
    for path in sorted(image_folder.glob("*/*.png")):
        path.rename(path.with_name(f"{9 - int(path.stem)}-renamed.png"))
    assert split_by_id(run(path=image_folder)[0]) == before


def test_the_cap_leaves_images_unused(run, image_folder, capsys):
    manifest, stored, _, counts = run(path=image_folder, train_per_class=1)
    assert len(stored) == 15
    assert counts["train"].tolist() == [1, 1, 1]
    assert counts["unused"].tolist() == [3, 3, 3]
    assert manifest.rows["split"].value_counts().to_dict() == {"train": 3, "validation": 6, "test": 6}
    assert capsys.readouterr().out == (
        "prepare: 24 images of 3 classes: 3 train, 6 validation, 6 test; 0 quarantined, 9 unused\n"
    )


def with_splits(folder, **places):
    """Move the images of each class into split folders: the first so many into the first, and so on."""
    for class_folder in sorted(folder.iterdir()):
        files = sorted(class_folder.iterdir())
        for split, count in places.items():
            (folder / split / class_folder.name).mkdir(parents=True)
            for path in files[:count]:
                path.rename(folder / split / class_folder.name / path.name)
            files = files[count:]
        class_folder.rmdir()
    return folder


def test_a_test_split_is_carved_from_the_training_folder(run, image_folder):
    folder = with_splits(image_folder, train=4, val=4)
    rows = run(path=folder, split="predefined")[0].rows
    assert pd.crosstab(rows["source"].str.split("/").str[0], rows["split"]).to_dict("index") == {
        "train": {"test": 3, "train": 9, "validation": 0},
        "val": {"test": 0, "train": 0, "validation": 12},
    }


def test_without_a_test_split_no_image_is_spent_on_one(run, image_folder, capsys):
    manifest, _, _, counts = run(path=with_splits(image_folder, train=4, val=4), split="predefined", test="none")
    assert manifest.rows["split"].value_counts().to_dict() == {"train": 12, "validation": 12}
    assert counts["test"].tolist() == [0, 0, 0]
    assert "12 train, 12 validation; 0 quarantined" in capsys.readouterr().out


def test_what_cannot_be_used_is_quarantined_with_a_reason(run, image_folder, capsys):
    content = (image_folder / "ants" / "0.png").read_bytes()
    (image_folder / "ants" / "half.png").write_bytes(content[:-40])
    (image_folder / "ants" / "empty.jpg").touch()
    (image_folder / "ants" / "page.jpg").write_text("<html>not found</html>")
    (image_folder / "ants" / "notes.txt").write_text("one, two")
    Image.new("RGB", (40, 7)).save(image_folder / "ants" / "tiny.png")
    (image_folder / "loose.png").write_bytes(content)
    shutil.copy(image_folder / "ants" / "1.png", image_folder / "ants" / "copy of 1.png")
    shutil.copy(image_folder / "ants" / "2.png", image_folder / "bees" / "ant or bee.png")
    manifest, stored, quarantine, counts = run(path=image_folder)
    assert quarantine.set_index("source")["reason"].to_dict() == {
        "ants/2.png": "conflicting-label",
        "bees/ant or bee.png": "conflicting-label",
        "ants/copy of 1.png": "duplicate",
        "ants/empty.jpg": "empty-file",
        "ants/half.png": "truncated",
        "ants/notes.txt": "unsupported-extension",
        "ants/page.jpg": "not-an-image",
        "ants/tiny.png": "too-small",
        "loose.png": "outside-class-folder",
    }
    details = quarantine.set_index("source")["detail"]
    assert details["ants/copy of 1.png"] == "the same bytes as ants/1.png"
    assert details["ants/2.png"] == "the same bytes stand under ants, bees"
    assert details.notna().all()
    assert counts["quarantined"].tolist() == [7, 1, 0]
    assert len(stored) == 23
    assert not set(manifest.rows["source"]) & set(quarantine["source"])
    assert "23 images of 3 classes" in capsys.readouterr().out


def test_an_image_in_two_of_the_sources_splits_is_only_tested_on(run, image_folder):
    folder = with_splits(image_folder, train=4, val=2, test=2)
    for target in ("train/ants/leak.png", "val/ants/leak.png"):
        shutil.copy(folder / "test" / "ants" / "6.png", folder / target)
    manifest, _, quarantine, _ = run(path=folder, split="predefined")
    leaked = hashlib.sha256((folder / "test/ants/6.png").read_bytes()).hexdigest()
    assert split_by_id(manifest)[leaked] == "test"
    assert sorted(quarantine["source"]) == ["train/ants/leak.png", "val/ants/leak.png"]
    assert set(quarantine["reason"]) == {"duplicate"}


def test_images_follow_their_rows_over_many_batches_and_copies(run, image_folder, monkeypatch):
    """Duplicates and unreadable files must not shift the images after them."""
    monkeypatch.setattr(prepare, "BATCH", 3)
    for name in ("ants", "bees"):
        (image_folder / name / "00.png").write_bytes(b"")
        shutil.copy(image_folder / name / "0.png", image_folder / name / "0copy.png")
    manifest, stored, quarantine, _ = run(path=image_folder)
    assert len(quarantine) == 4
    for row, image in zip(manifest.rows.itertuples(), stored, strict=True):
        expected = images.resize(images.decode((image_folder / row.source).read_bytes()), 8, "stretch")
        np.testing.assert_array_equal(image, expected)


def test_a_class_without_a_usable_image_stops_before_anything_is_written(run, tmp_path, image_folder):
    for index, path in enumerate(sorted((image_folder / "bees").iterdir())):
        path.write_bytes(b"" if index else b"no image")
    with pytest.raises(
        SourceError, match=r"class 'bees' has no usable image: 7 empty-file, 1 not-an-image; see .*/report"
    ):
        run(path=image_folder)
    assert not (tmp_path / "run" / "prepared").exists()
    assert len(pd.read_csv(tmp_path / "run" / "report" / "quarantine.csv")) == 8


def test_a_class_that_its_copies_leave_too_small_is_named(run, image_folder):
    first, *others = sorted((image_folder / "bees").iterdir())
    for path in others[:6]:
        shutil.copy(first, path)
    with pytest.raises(
        SplitError, match=r"class 'bees' has 0 train, 1 validation, 1 test. There are 18 usable .*: 6 duplicate"
    ):
        run(path=image_folder)


def test_a_folder_that_cannot_be_trained_on_is_refused_before_a_file_is_read(run, image_folder, monkeypatch):
    shutil.rmtree(image_folder / "ants")
    shutil.rmtree(image_folder / "wasps")
    monkeypatch.setattr(collection, "inspect", lambda *arguments, **options: pytest.fail("a file was read"))
    with pytest.raises(SourceError, match="one class only, 'bees'"):
        run(path=image_folder)


def test_an_interrupted_run_leaves_the_last_whole_output(run, tmp_path, image_folder, monkeypatch):
    run(path=image_folder)
    before = contents(tmp_path / "run" / "prepared")

    def die(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "_write_prepared", die)
    with pytest.raises(KeyboardInterrupt):
        run(path=image_folder, seed=2)
    assert contents(tmp_path / "run" / "prepared") == before


def test_memory_does_not_grow_with_the_number_of_images(tmp_path, monkeypatch):
    """2,400 files of 19 KiB become images of 48 KiB; no more than a few batches are held at once."""

    def many(section, seed, rejects, scratch):
        random = np.random.default_rng(0)
        for index in range(2400):
            content = embedded._png(random.integers(0, 256, (80, 80, 3), np.uint8))
            yield Record(content, "ab"[index % 2], None, None, f"{index:04d}")

    monkeypatch.setitem(sources.SOURCES, "digits", many)
    monkeypatch.setattr(shards, "SHARD_BYTES", 2**20)
    monkeypatch.setattr(prepare, "BATCH", 16)
    tracemalloc.start()
    prepare.run(settings(source="digits", image_size=128), 1, tmp_path / "prepared", tmp_path / "report")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(read_manifest(tmp_path / "prepared").rows) == 2400
    assert peak < 24 * 2**20  # all of them: 44 MiB of files, 112 MiB of images


@pytest.mark.parametrize("how", ["crop", "pad"])
def test_the_resize_is_the_one_that_params_name(run, image_folder, how):
    manifest, stored, _, _ = run(path=image_folder, resize=how)
    content = (image_folder / manifest.rows["source"][0]).read_bytes()
    np.testing.assert_array_equal(stored[0], images.resize(images.decode(content), 8, how))


@pytest.mark.real_data
@pytest.mark.parametrize(("test", "counts"), [("none", (245, 153, 0)), (0.2, (196, 153, 49))])
def test_real_photographs(run, photographs, test, counts):
    manifest, stored, quarantine, _ = run(path=photographs, image_size=224, split="predefined", test=test)
    assert manifest.classes == ("ants", "bees")
    assert tuple((manifest.rows["split"] == split).sum() for split in SPLITS) == counts
    assert quarantine.empty
    assert stored.shape == (398, 224, 224, 3)
    row = manifest.rows.iloc[100]
    with Image.open(photographs / row["source"]) as photo:
        assert (row["width"], row["height"]) == photo.size
        expected = np.asarray(photo.convert("RGB").resize((32, 32), Image.Resampling.BOX), float)
    actual = np.asarray(Image.fromarray(stored[100]).resize((32, 32), Image.Resampling.BOX), float)
    assert np.abs(expected - actual).mean() < 3


def picture(seed, size=(96, 80)):
    """A smooth picture that is like no other: perceptual hashes of noise would say nothing."""
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def copied(tmp_path):
    """Twenty pictures of each of two classes; in each, 0 is there twice more (as BMP and JPEG), 1 smaller as WebP."""
    for number, name in enumerate(("cats", "dogs")):
        folder = tmp_path / "copied" / name
        folder.mkdir(parents=True)
        for index in range(20):
            picture(100 * number + index).save(folder / f"{index:02d}.png")
        first, second = picture(100 * number), picture(100 * number + 1)
        first.save(folder / "same pixels.bmp")
        first.save(folder / "again.jpg", quality=90)
        second.resize((72, 60)).save(folder / "smaller.webp", quality=90)
    return tmp_path / "copied"


@pytest.mark.parametrize("split", ["stratified", "hash", "kfold"])
def test_copies_are_never_in_two_splits(run, copied, split):
    for fold in range(4):
        rows = run(path=copied, split=split, fold=fold, test="none", name=f"{split}{fold}")[0].rows
        for name in ("cats", "dogs"):
            for copies in (("00.png", "same pixels.bmp", "again.jpg"), ("01.png", "smaller.webp")):
                held = rows[rows["source"].isin([f"{name}/{copy}" for copy in copies])]
                assert len(held)
                assert held["split"].nunique() == 1
                if split != "hash":
                    assert len(held) == len(copies)
                    assert held["group"].nunique() == 1
        assert rows["group"].nunique() == 40


def test_a_copy_of_a_test_image_leaves_training_and_is_reported(run, image_folder):
    folder = with_splits(image_folder, train=4, val=2, test=2)
    for split, quality in (("test", 95), ("val", 80), ("train", 90)):
        picture(7, (60, 60)).save(folder / split / "ants" / f"leak{quality}.jpg", quality=quality)
    manifest, _, quarantine, counts = run(path=folder, split="predefined")
    assert quarantine.set_index("source")["reason"].to_dict() == {
        "train/ants/leak90.jpg": "leaked-copy",
        "val/ants/leak80.jpg": "leaked-copy",
    }
    assert quarantine["detail"].str.contains("the same picture as test/ants/leak95.jpg in test").all()
    assert manifest.rows.set_index("source")["split"]["test/ants/leak95.jpg"] == "test"
    assert counts.set_index("label").loc["ants"].to_dict() == {
        "train": 4, "validation": 2, "test": 3, "unused": 0, "quarantined": 2,
    }  # fmt: skip


def test_a_picture_under_two_labels_is_in_no_split(run, copied):
    picture(3).save(copied / "dogs" / "cat.jpg", quality=92)
    picture(4).save(copied / "dogs" / "cat.bmp")
    manifest, _, quarantine, _ = run(path=copied)
    assert quarantine.set_index("source")["reason"].to_dict() == dict.fromkeys(
        ["cats/03.png", "dogs/cat.jpg", "cats/04.png", "dogs/cat.bmp"], "conflicting-label"
    )
    assert "the same picture as cats/03.png under cats" in set(quarantine["detail"])
    assert not set(quarantine["source"]) & set(manifest.rows["source"])


@pytest.mark.parametrize("split", ["stratified", "group", "hash", "kfold"])
def test_a_group_that_only_a_byte_copy_names_is_not_torn_apart(run, copied, split):
    rows = []
    for number, path in enumerate(sorted(copied.glob("*/??.png"))):
        name, herd = path.relative_to(copied).as_posix(), f"herd {number // 2}"
        rows.append((name, path.parent.name, herd))
        if number % 2:
            shutil.copy(path, path.with_name(f"0copy of {path.name}"))
            rows.append((f"{path.parent.name}/0copy of {path.name}", path.parent.name, None))
    pd.DataFrame(rows, columns=["path", "label", "herd"]).to_csv(copied / "labels.csv", index=False)
    table = NO_TABLE.model_copy(update={"file": "labels.csv", "group": "herd"})
    manifest, _, quarantine, _ = run(path=copied, source="table", table=table, split=split)
    assert set(quarantine["reason"]) == {"duplicate"}
    herds = {hashlib.sha256((copied / name).read_bytes()).hexdigest(): herd for name, _, herd in rows if herd}
    splits = manifest.rows["split"].groupby(manifest.rows["image_id"].map(herds)).nunique()
    assert len(splits) == 20
    assert splits.max() == 1


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_what_a_table_says_of_an_image_stands_in_its_row(run, copied, tmp_path, kind):
    """Also where copies and unreadable files leave, and where files have other names and another order."""
    (copied / "dogs" / "bad.png").write_bytes(b"")
    names = sorted(path.relative_to(copied).as_posix() for path in copied.glob("*/??.png"))
    shutil.copy(copied / names[0], copied / "cats" / "zz copy.png")
    names = ["dogs/bad.png", *names, "cats/zz copy.png"]
    labels = [name.split("/")[0] for name in names]
    rows = pd.DataFrame({"path": names, "label": labels, "camera": [f"c{n % 3}" for n in range(len(names))]})
    rows = rows.assign(year=[str(2000 + n) if n % 7 else None for n in range(len(names))])
    rows.to_csv(copied / "labels.csv", index=False)
    rows.to_parquet(copied / "labels.parquet")
    table = NO_TABLE.model_copy(update={"file": f"labels.{kind}"})
    manifest = run(path=copied, source="table", table=table)[0]
    attributes = read_attributes(tmp_path / "run" / "report", manifest)
    assert attributes.columns.tolist() == ["image_id", "brightness", "table:camera", "table:year"]
    assert len(attributes) == 40
    said = rows.set_index("path").loc[manifest.rows["source"]]
    assert attributes["table:camera"].tolist() == said["camera"].tolist()
    assert attributes["table:year"].fillna("").tolist() == said["year"].fillna("").tolist()
    for row, brightness in zip(manifest.rows.itertuples(), attributes["brightness"], strict=True):
        assert brightness == pytest.approx(images.decode((copied / row.source).read_bytes()).mean())
    (copied / "labels.csv").unlink()
    shuffled = rows.sample(frac=1, random_state=0)
    shuffled.to_csv(copied / "labels.csv", index=False)
    shuffled.to_parquet(copied / "labels.parquet")
    run(path=copied, source="table", table=table, name="again")
    first, second = (tmp_path / name / "report" / "attributes.parquet" for name in ("run", "again"))
    assert first.read_bytes() == second.read_bytes()


def test_a_folder_has_the_brightness_alone(run, copied, tmp_path):
    attributes = read_attributes(tmp_path / "run" / "report", run(path=copied)[0])
    assert attributes.columns.tolist() == ["image_id", "brightness"]
    assert attributes["brightness"].between(0, 255).all()


def test_what_shows_a_picture_with_two_labels_goes_with_it(run, copied):
    """The same bytes under two labels, and the same pixels in another file under one of them."""
    shutil.copy(copied / "cats" / "05.png", copied / "dogs" / "cat.png")
    picture(5).save(copied / "cats" / "05.bmp")
    manifest, _, quarantine, counts = run(path=copied)
    assert quarantine.set_index("source")["reason"].to_dict() == dict.fromkeys(
        ["cats/05.png", "dogs/cat.png", "cats/05.bmp"], "conflicting-label"
    )
    assert not set(quarantine["source"]) & set(manifest.rows["source"])
    assert counts.iloc[:, 1:].to_numpy().sum() == 48


def test_control_characters_in_names_do_not_break_the_tables(run, copied):
    (copied / "dogs").rename(copied / "do\rgs")
    (copied / "do\rgs" / "b\nad.png").write_bytes(b"")
    manifest, _, quarantine, counts = run(path=copied)
    assert counts["label"].tolist() == ["cats", r"do\rgs"]
    assert quarantine[["source", "label", "reason"]].to_numpy().tolist() == [
        [r"do\rgs/b\nad.png", r"do\rgs", "empty-file"]
    ]
    assert manifest.classes == ("cats", r"do\rgs")


def test_a_failed_run_leaves_no_report_of_an_earlier_one(run, tmp_path, copied):
    run(path=copied)
    for path in sorted((copied / "dogs").iterdir())[1:]:
        path.write_bytes(b"")
    with pytest.raises(
        SplitError, match=r"class 'dogs' has .* There are 24 usable images in \d+ groups .* 22 empty-file"
    ):
        run(path=copied)
    assert [path.name for path in (tmp_path / "run" / "report").iterdir()] == ["quarantine.csv"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_leaves_no_process_and_nothing_that_looks_whole(tmp_path, number):
    for index in range(400):
        target = tmp_path / "many" / "ab"[index % 2] / f"{index}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        picture(index, (1200, 1200)).save(target, quality=95)
    code = (
        "import sys; from test_prepare import *; prepare.run(settings(path=sys.argv[1]), 1, *map(Path, sys.argv[2:]))"
    )
    if number == signal.SIGTERM:
        code = "import signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(1)); " + code
    command = [sys.executable, "-c", code, *(str(tmp_path / name) for name in ("many", "prepared", "report"))]
    process = subprocess.Popen(command, cwd=Path(__file__).parent, stderr=subprocess.PIPE)
    while process.poll() is None and not list(tmp_path.glob(".prepared.partial/*/arrays/pixels")):
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=30)  # ends when all that hold the pipe have ended, the workers among them
    assert process.returncode != 0
    assert not (tmp_path / "prepared").exists()
    if number == signal.SIGTERM:
        assert not (tmp_path / ".prepared.partial").exists()


def test_an_image_keeps_its_split_under_hash_when_others_come(run, copied):
    before = split_by_id(run(path=copied, split="hash")[0])
    for index in range(30):
        picture(1000 + index).save(copied / "cats" / f"new {index}.png")
        picture(2000 + index).save(copied / "dogs" / f"new {index}.png")
    picture(5).save(copied / "cats" / "bridge.jpg", quality=60)
    after = split_by_id(run(path=copied, split="hash", seed=9, name="later")[0])
    assert all(after.get(image, split) == split for image, split in before.items())
    assert len(set(before) & set(after)) >= len(before) - 1


def test_every_image_validates_in_one_fold_and_the_test_images_stay(run, copied):
    validated, tested = [], set()
    for fold in range(4):
        splits = run(path=copied, split="kfold", fold=fold, name=f"fold{fold}")[0].rows.set_index("image_id")["split"]
        validated += splits.index[splits == "validation"].tolist()
        tested.add(tuple(splits.index[splits == "test"]))
    assert len(validated) == len(set(validated))
    assert len(tested) == 1
    assert len(validated) + len(next(iter(tested))) == 46


def test_groups_of_a_table_stay_together(run, copied):
    files = sorted(path.relative_to(copied).as_posix() for path in copied.glob("*/??.png"))
    rows = pd.DataFrame({"path": files, "label": [file.split("/")[0] for file in files]})
    rows["patient"] = [f"p{number % 20 // 2}" for number in range(40)]
    rows.to_csv(copied / "labels.csv", index=False)
    table = NO_TABLE.model_copy(update={"file": "labels.csv", "group": "patient"})
    manifest, _, quarantine, _ = run(path=copied, source="table", table=table, split="group")
    assert len(manifest.rows) == 40
    assert quarantine.empty
    assert manifest.rows.groupby("group")["split"].nunique().max() == 1
    assert set(manifest.rows["group"]) == {f"group:p{number}" for number in range(10)}
    groups = manifest.rows.drop_duplicates("group")["split"].value_counts()
    assert groups.to_dict() == {"train": 6, "validation": 2, "test": 2}


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_an_archive_gives_what_its_folder_gives(run, copied, tmp_path, kind):
    plain, stored, _, _ = run(path=copied)
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path, "copied"))
    manifest, images_, _, _ = run(path=packed, source="archive", name="archive")
    pd.testing.assert_frame_equal(plain.rows.drop(columns="source"), manifest.rows.drop(columns="source"))
    np.testing.assert_array_equal(stored, images_)
    assert not list(tmp_path.rglob("*.partial"))


def test_the_corpus_of_bad_files_goes_to_the_quarantine_and_nowhere_else(run, copied):
    bad, odd = bad_images(), odd_images()
    for place, (name, (content, _)) in enumerate(sorted(bad.items())):
        (copied / ("cats", "dogs")[place % 2] / f"bad {name}").write_bytes(content)
    for place, (name, content) in enumerate(sorted(odd.items())):
        (copied / ("cats", "dogs")[place % 2] / f"odd {name}").write_bytes(content)
    manifest, stored, quarantine, _ = run(path=copied)
    assert len(bad) >= 40
    reasons = {Path(row.source).name: row.reason for row in quarantine.itertuples() if "/bad " in row.source}
    once = quarantine.set_index("source")["detail"]
    assert once.notna().all()
    assert reasons == {f"bad {name}": reason for name, (_, reason) in bad.items()}
    assert not manifest.rows["source"].str.contains("/bad ").any()
    assert manifest.rows["source"].str.contains("/odd ").sum() > 20
    assert len(stored) == len(manifest.rows)


def test_too_many_bad_files_stop_the_run_with_a_summary(run, tmp_path, copied):
    for index in range(6):
        (copied / "cats" / f"bad{index}.png").write_bytes(b"" if index else b"text")
    (copied / "dogs" / "notes.txt").write_text("one")
    with pytest.raises(
        SourceError,
        match=r"copied: 7 of 53 files cannot be used \(13\.2%\), and data.max_invalid_fraction allows 10\.0%: "
        r"5 empty-file, 1 not-an-image, 1 unsupported-extension; each is listed in .*report/quarantine.csv",
    ):
        run(path=copied, max_invalid_fraction=0.1)
    assert not (tmp_path / "run" / "prepared").exists()
    assert len(pd.read_csv(tmp_path / "run" / "report" / "quarantine.csv")) == 7
    run(path=copied, max_invalid_fraction=0.14)


def test_a_class_emptied_by_its_archive_is_named(run, tmp_path, copied):
    for path in (copied / "dogs").iterdir():
        path.write_bytes(b"")
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "copied"))
    with pytest.raises(SourceError, match=r"class 'dogs' has no usable image: 23 empty-file; see"):
        run(path=packed, source="archive")
    shutil.rmtree(copied / "dogs")
    packed = Path(shutil.make_archive(str(tmp_path / "one"), "zip", tmp_path, "copied"))
    with pytest.raises(SourceError, match=r"one class only, 'cats'"):
        run(path=packed, source="archive", name="one")


def test_the_data_report_is_written_beside_its_tables(run, tmp_path, copied):
    run(path=copied)
    report = tmp_path / "run" / "report"
    assert {path.name for path in report.iterdir()} == {
        "counts.csv", "quarantine.csv", "statistics.csv", "duplicates.csv", "index.html", "attributes.parquet",
    }  # fmt: skip
    assert "46 images" in (report / "index.html").read_text()
    copies = pd.read_csv(report / "duplicates.csv")
    assert copies["kind"].isin(["near", "exact"]).sum() == 6  # which of them depends on who leads
    assert (copies["kind"] == "leader").sum() == 4
