import numpy as np
import pandas as pd
import pytest

from graft.artifacts import (
    MANIFEST_COLUMNS,
    Manifest,
    Predictions,
    class_numbers,
    read_images,
    read_manifest,
    read_predictions,
    read_views,
    view_rows,
    write_manifest,
    write_predictions,
)
from graft.calibration import apply_temperature, remove_temperature
from graft.shards import ShardWriter
from graft.storage import ArtifactError, write_json, write_table

CLASSES = ("ants", "bees")
ROWS = pd.DataFrame(
    [
        ("a", "bees", "train", "g", "bees/1.png", 4, 3),
        ("b", "ants", "test", "b", "ants/1.png", 4, 3),
        ("c", "ants", "train", "g", "ants/2.png", 4, 3),
        ("d", "bees", "validation", "d", "bees/2.png", 4, 3),
    ],
    columns=list(MANIFEST_COLUMNS),
)
MANIFEST = Manifest(ROWS, CLASSES)


def test_a_manifest_comes_back(tmp_path):
    write_manifest(tmp_path, MANIFEST)
    manifest = read_manifest(tmp_path)
    pd.testing.assert_frame_equal(manifest.rows, ROWS)
    assert manifest.classes == CLASSES
    assert manifest.labels.tolist() == [1, 0, 0, 1]
    assert manifest.positions("train").tolist() == [0, 2]
    assert manifest.positions("test").tolist() == [1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param(pd.concat([ROWS, ROWS[:1]]), "lists an image twice", id="an image twice"),
        pytest.param(ROWS.assign(split="holdout"), r"splits must be among .* received \['holdout'\]", id="a split"),
        pytest.param(
            ROWS.assign(label="wasps"), r"labels must be among \['ants', 'bees'\], received 'wasps'", id="label"
        ),
        pytest.param(ROWS.assign(group="g"), r"has group 'g' in more than one split", id="a group in two splits"),
        pytest.param(ROWS.drop(columns="source"), "must have the columns", id="a column that is missing"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(tmp_path, rows, message):
    write_manifest(tmp_path, Manifest(rows, CLASSES))
    with pytest.raises(ArtifactError, match=message):
        read_manifest(tmp_path)


def test_a_manifest_without_its_classes_is_refused(tmp_path):
    write_manifest(tmp_path, MANIFEST)
    (tmp_path / "classes.json").unlink()
    with pytest.raises(ArtifactError, match=r"classes.json is missing"):
        read_manifest(tmp_path)


def test_class_numbers_follow_the_order_of_the_classes():
    assert class_numbers(pd.Series(["b", "a", "b"], index=[7, 8, 9]), ["b", "a"]).tolist() == [0, 1, 0]
    with pytest.raises(ArtifactError, match="received 'x'"):
        class_numbers(pd.Series(["a", "x"], index=[7, 8]), ["a"])


def test_images_belong_to_an_index_of_as_many_rows(tmp_path):
    with ShardWriter(tmp_path, "images", (2,), np.float32, ROWS) as writer:
        writer.append(np.zeros((4, 2)))
    assert len(read_images(tmp_path, ROWS)) == 4
    with pytest.raises(ArtifactError, match="images has 4 rows, its index has 3"):
        read_images(tmp_path, ROWS[:3])


VIEWS = pd.DataFrame({"image_id": ["a", "c"] * 3, "view": [0, 0, 1, 1, 2, 2]})


def test_views_belong_to_the_training_images_of_a_manifest(tmp_path):
    write_table(tmp_path / "views.parquet", VIEWS)
    views = read_views(tmp_path, MANIFEST)
    pd.testing.assert_frame_equal(views, VIEWS)
    assert [rows.tolist() for rows in view_rows(views)] == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    "views",
    [
        pytest.param(VIEWS.assign(image_id=["a", "b"] * 3), id="views of a test image"),
        pytest.param(VIEWS[:-1], id="a view of some images only"),
        pytest.param(VIEWS.sort_values("image_id", kind="stable"), id="image after image"),
        pytest.param(VIEWS.assign(view=[1, 1, 0, 0, 2, 2]), id="views in another order"),
    ],
)
def test_views_of_another_manifest_are_refused(tmp_path, views):
    write_table(tmp_path / "views.parquet", views)
    with pytest.raises(
        ArtifactError, match=r"views.parquet does not hold the views of this manifest's training images; rerun augment"
    ):
        read_views(tmp_path, MANIFEST)


HELD_OUT = ROWS.iloc[[1, 3]]
PROBABILITIES = np.array([[0.75, 0.25], [0.125, 0.875]])


def test_predictions_come_back_exactly(tmp_path):
    path = tmp_path / "predictions.parquet"
    write_predictions(path, Predictions(HELD_OUT, PROBABILITIES, CLASSES, 1.7))
    assert pd.read_parquet(path).columns.tolist() == ["image_id", "split", "label", "temperature", "p:ants", "p:bees"]
    predictions = read_predictions(path)
    assert predictions.classes == CLASSES
    assert predictions.temperature == 1.7
    assert predictions.rows["image_id"].tolist() == ["b", "d"]
    numbers, probabilities = predictions.split("validation")
    assert numbers.tolist() == [1]
    np.testing.assert_array_equal(probabilities, PROBABILITIES[1:])


def test_uncalibrated_probabilities_are_those_before_the_temperature():
    """(9, 1) / 10 at temperature 2 is (3, 1) / 4; the same as calibration.py has it, also where a class is at zero."""
    np.testing.assert_allclose(Predictions(HELD_OUT, PROBABILITIES, CLASSES).uncalibrated(), PROBABILITIES)
    by_hand = Predictions(HELD_OUT[:1], np.array([[0.75, 0.25]]), CLASSES, 2.0)
    np.testing.assert_allclose(by_hand.uncalibrated(), [[0.9, 0.1]])
    raw = np.random.default_rng(0).dirichlet(np.full(2, 0.1), 100)
    for temperature in (0.05, 0.4, 1.0, 3.0, 20.0):
        calibrated = apply_temperature(raw, temperature)
        predictions = Predictions(HELD_OUT, calibrated, CLASSES, temperature)
        np.testing.assert_allclose(predictions.uncalibrated(), raw, rtol=0, atol=1e-9)
        np.testing.assert_allclose(predictions.uncalibrated(), remove_temperature(calibrated, temperature), atol=1e-9)


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.inf, np.nan, "1"])
def test_a_temperature_that_is_none_is_neither_written_nor_read(tmp_path, temperature):
    path, message = tmp_path / "predictions.parquet", "temperature must be a positive number, received"
    with pytest.raises(ArtifactError, match=message):
        write_predictions(path, Predictions(HELD_OUT, PROBABILITIES, CLASSES, temperature))
    assert not path.exists()
    columns = {f"p:{name}": PROBABILITIES[:, number] for number, name in enumerate(CLASSES)}
    write_table(path, HELD_OUT[["image_id", "split", "label"]].assign(temperature=temperature, **columns))
    with pytest.raises(ArtifactError, match=message):
        read_predictions(path)
    write_table(path, HELD_OUT[["image_id", "split", "label"]].assign(temperature=[1.0, 2.0], **columns))
    with pytest.raises(ArtifactError, match=r"temperature must be the same in every row, received \[1.0, 2.0\]"):
        read_predictions(path)


def test_an_absent_split_is_empty(tmp_path):
    numbers, probabilities = Predictions(HELD_OUT[1:], PROBABILITIES[1:], CLASSES).split("test")
    assert numbers.shape == (0,)
    assert probabilities.shape == (0, 2)


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        pytest.param([[0.5, 0.5], [np.nan, 1]], "row 1 is not a probability distribution", id="NaN"),
        pytest.param([[np.inf, 0], [0, 1]], "row 0 is not a probability distribution", id="infinite"),
        pytest.param([[0.5, 0.5], [1.5, -0.5]], "row 1 is not a probability distribution", id="negative"),
        pytest.param([[0.5, 0.4], [0, 1]], "row 0 is not a probability distribution", id="a sum below one"),
        pytest.param([[3.0, 2.0], [0, 1]], "row 0 is not a probability distribution", id="logits"),
        pytest.param([[0, 1]], r"must have shape \(2, 2\), received \(1, 2\)", id="a row too few"),
        pytest.param([[1], [1]], r"must have shape \(2, 2\), received \(2, 1\)", id="a class too few"),
    ],
)
def test_predictions_that_are_no_probabilities_are_neither_written_nor_read(tmp_path, probabilities, message):
    path, values = tmp_path / "predictions.parquet", np.array(probabilities, float)
    with pytest.raises(ArtifactError, match=message):
        write_predictions(path, Predictions(HELD_OUT, values, CLASSES))
    assert not path.exists()
    if values.shape == (2, 2):
        columns = {f"p:{name}": values[:, number] for number, name in enumerate(CLASSES)}
        write_table(path, HELD_OUT[["image_id", "split", "label"]].assign(temperature=1.0, **columns))
        with pytest.raises(ArtifactError, match=message):
            read_predictions(path)


def test_predictions_without_labels_are_refused(tmp_path):
    write_table(tmp_path / "p.parquet", pd.DataFrame({"image_id": ["a"], "p:ants": [1.0]}))
    with pytest.raises(ArtifactError, match="must have the columns"):
        read_predictions(tmp_path / "p.parquet")


def test_a_truncated_file_of_predictions_is_refused(tmp_path):
    path = tmp_path / "p.parquet"
    write_predictions(path, Predictions(HELD_OUT, PROBABILITIES, CLASSES))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="not a readable Parquet file"):
        read_predictions(path)


def test_classes_of_another_run_are_refused(tmp_path):
    write_manifest(tmp_path, MANIFEST)
    write_json(tmp_path / "classes.json", ["bees"])
    with pytest.raises(ArtifactError, match=r"labels must be among \['bees'\], received 'ants'"):
        read_manifest(tmp_path)


def test_a_digest_stands_for_what_predictions_depend_on():
    assert MANIFEST.digest == Manifest(ROWS.copy(), CLASSES).digest
    assert MANIFEST.digest == Manifest(ROWS.assign(source="", width=1), CLASSES).digest
    others = [ROWS[::-1], *(ROWS.assign(**{name: "x"}) for name in ("image_id", "label", "split", "group"))]
    digests = {Manifest(rows, CLASSES).digest for rows in others} | {Manifest(ROWS, CLASSES[::-1]).digest}
    assert len(digests - {MANIFEST.digest}) == 6


def test_predictions_carry_the_manifest_that_they_are_of(tmp_path):
    path = tmp_path / "predictions.parquet"
    write_predictions(path, Predictions(HELD_OUT, PROBABILITIES, CLASSES, 1.0, MANIFEST.digest))
    assert read_predictions(path).manifest == MANIFEST.digest
    assert read_predictions(path, manifest=MANIFEST).rows["image_id"].tolist() == ["b", "d"]
    write_predictions(path, Predictions(HELD_OUT, PROBABILITIES, CLASSES))
    assert read_predictions(path).manifest is None
    with pytest.raises(ArtifactError, match=r"must be of the manifest with the digest .* received none"):
        read_predictions(path, manifest=MANIFEST)


def test_archived_predictions_may_be_from_before_there_were_schemas(tmp_path):
    path, columns = tmp_path / "predictions.parquet", {"p:ants": PROBABILITIES[:, 0], "p:bees": PROBABILITIES[:, 1]}
    HELD_OUT[["image_id", "split", "label"]].assign(temperature=1.0, **columns).to_parquet(path)
    with pytest.raises(ArtifactError, match="must be of schema 1, received none"):
        read_predictions(path)
    np.testing.assert_array_equal(read_predictions(path, archived=True).probabilities, PROBABILITIES)


def test_rows_belong_to_their_index(tmp_path):
    index = VIEWS[:4]
    with ShardWriter(tmp_path, "images", (2,), np.float32, index) as writer:
        writer.append(np.zeros((4, 2)))
    assert len(read_images(tmp_path, index)) == 4
    for other in (index[::-1], index.assign(view=0), index[["image_id"]], index.assign(image_id="a")):
        with pytest.raises(ArtifactError, match=r"images.json must be of the images whose list has the digest"):
            read_images(tmp_path, other)


def test_rows_of_no_index_are_refused(tmp_path):
    with ShardWriter(tmp_path, "images", (2,), np.float32) as writer:
        writer.append(np.zeros((4, 2)))
    with pytest.raises(ArtifactError, match=r"images.json must be of the images .*, received none; it is of another"):
        read_images(tmp_path, ROWS)
