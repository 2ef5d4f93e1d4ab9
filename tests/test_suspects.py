from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from graft.artifacts import Predictions
from graft.storage import ArtifactError
from graft.suspects import COLUMNS, RELABEL_COLUMNS, find_suspects, to_relabel
from graft.transferability import linear_probe


def judgement(
    labels: Sequence[str], probabilities: np.ndarray, classes: Sequence[str], prefix: str = ""
) -> Predictions:
    ids = [f"{prefix}{k:04d}" for k in range(len(labels))]
    rows = pd.DataFrame({"image_id": ids, "split": "train", "label": list(labels)})
    return Predictions(rows, np.asarray(probabilities, np.float64), tuple(classes))


def manifest_of(*judgements: Predictions) -> pd.DataFrame:
    rows = pd.concat([predictions.rows for predictions in judgements], ignore_index=True)
    return rows.assign(source=[f"photos/{image_id}.png" for image_id in rows["image_id"]])


def sure(labels: Sequence[int], classes: int, probability: float = 0.9) -> np.ndarray:
    """Rows that give one class this probability and the others the same rest."""
    rows = np.full((len(labels), classes), (1 - probability) / (classes - 1))
    rows[np.arange(len(labels)), labels] = probability
    return rows


def test_most_planted_errors_are_found_and_few_others() -> None:
    """Real digits, of which a twentieth got a wrong label, judged by a probe on their pixels."""
    pixels, actual = load_digits(return_X_y=True)
    generator = np.random.default_rng(0)
    wrong = generator.choice(len(actual), len(actual) // 20, replace=False)
    given = actual.copy()
    given[wrong] = (actual[wrong] + generator.integers(1, 10, len(wrong))) % 10
    probe = linear_probe(pixels, given, np.arange(len(given)), classes=10, folds=5, seed=0)
    judged = judgement([str(label) for label in given], probe.probabilities, [str(k) for k in range(10)])
    found = find_suspects(manifest_of(judged), [("linear probe on pixels", judged)])
    numbers = found["image_id"].astype(int).to_numpy()
    planted = np.isin(numbers, wrong)
    assert planted.mean() > 0.9
    assert planted.sum() / len(wrong) > 0.75
    right = found["suggested"].astype(int).to_numpy()[planted] == actual[numbers[planted]]
    assert right.mean() > 0.9
    assert planted[: len(found) // 2].mean() > 0.95


def test_a_suspect_says_what_was_given_and_what_is_suggested() -> None:
    actual = np.arange(30) % 3
    labels = ["abc"[k] for k in actual]
    labels[4] = "c"  # looks like b
    judged = judgement(labels, sure(actual, 3), "abc")
    found = find_suspects(manifest_of(judged), [("vgg16", judged)])
    assert tuple(found.columns) == COLUMNS
    assert found.to_dict("records") == [
        {
            "image_id": "0004",
            "source": "photos/0004.png",
            "split": "train",
            "label": "c",
            "suggested": "b",
            "probability_of_label": pytest.approx(0.05),
            "probability_of_suggested": pytest.approx(0.9),
            "score": pytest.approx(0.05),
            "judged_by": "vgg16",
        }
    ]


def test_judgements_are_taken_by_themselves_and_sorted_together() -> None:
    actual = np.arange(40) % 2
    judged = {}
    for name, probability in (("first", 0.8), ("second", 0.95)):
        labels = ["ab"[k] for k in actual]
        labels[5], labels[7] = "a", "a"  # both look like b
        judged[name] = judgement(labels, sure(actual, 2, probability), "ab", prefix=name[0])
    found = find_suspects(manifest_of(*judged.values()), list(judged.items()))
    assert found["judged_by"].tolist() == ["second", "second", "first", "first"]
    assert found["image_id"].tolist() == ["s0005", "s0007", "f0005", "f0007"]  # equal scores by image_id
    assert found["score"].is_monotonic_increasing
    backwards = find_suspects(manifest_of(*judged.values()), list(judged.items())[::-1])
    pd.testing.assert_frame_equal(backwards, found)


def test_right_labels_are_not_suspected() -> None:
    actual = np.arange(30) % 3
    judged = judgement(["abc"[k] for k in actual], sure(actual, 3), "abc")
    assert not len(find_suspects(manifest_of(judged), [("vgg16", judged)]))


@pytest.mark.parametrize("judges", [0, 1])
def test_no_suspects_are_a_table_with_its_columns(judges: int) -> None:
    judged = judgement([], np.empty((0, 2)), "ab")
    found = find_suspects(manifest_of(judged), [("vgg16", judged)][:judges])
    assert tuple(found.columns) == COLUMNS
    assert not len(found)
    assert tuple(to_relabel(found).columns) == RELABEL_COLUMNS


@pytest.mark.parametrize(
    ("labels", "actual", "classes"),
    [
        ([1] * 6, [1, 1, 1, 1, 0, 2], "abc"),  # one class present: whom to confuse with is unknown
        ([0] * 6, [0, 0, 0, 1, 1, 1], "ab"),
        ([2], [1], "abc"),
        ([0, 2], [0, 2], "abc"),
        (
            [0, 0, 0, 0, 2, 2],
            [0, 0, 0, 1, 2, 2],
            "abc",
        ),  # b is given to nobody, so that nothing says what is sure of it
    ],
)
def test_classes_without_images_are_not_suggested(labels: list[int], actual: list[int], classes: str) -> None:
    judged = judgement([classes[k] for k in labels], sure(actual, len(classes)), classes)
    assert not len(find_suspects(manifest_of(judged), [("vgg16", judged)]))


@pytest.mark.parametrize("seed", range(20))
def test_small_and_odd_parts_are_judged_without_a_warning(seed: int) -> None:
    generator = np.random.default_rng(seed)
    n, classes = generator.integers(1, 12), "abcdef"[: generator.integers(2, 7)]
    probabilities = generator.dirichlet(np.full(len(classes), 0.2), n)
    labels = [classes[k] for k in generator.integers(0, len(classes), n)]
    judged = judgement(labels, probabilities, classes)
    found = find_suspects(manifest_of(judged), [("vgg16", judged)])
    assert (found["probability_of_suggested"] > found["probability_of_label"]).all()
    assert (found["label"] != found["suggested"]).all()


def test_the_table_to_relabel_from_has_room_for_the_new_label() -> None:
    labels = ["ab"[k % 2] for k in range(20)]
    labels[0] = "b"
    judged = judgement(labels, sure([k % 2 for k in range(20)], 2), "ab")
    table = to_relabel(find_suspects(manifest_of(judged), [("vgg16", judged)]))
    assert tuple(table.columns) == RELABEL_COLUMNS
    assert table[["source", "label", "suggested", "new_label"]].to_numpy().tolist() == [
        ["photos/0000.png", "b", "a", ""]
    ]


def test_an_unknown_image_is_refused() -> None:
    labels = ["ab"[k % 2] for k in range(20)]
    labels[0] = "b"
    judged = judgement(labels, sure([k % 2 for k in range(20)], 2), "ab")
    with pytest.raises(ArtifactError, match="must list image '0000'"):
        find_suspects(manifest_of(judged).iloc[1:], [("vgg16", judged)])
