import numpy as np
import pytest

from graft.export_checks import LIMIT, Agreement, check
from graft.export_formats import ExportError

ROWS = np.arange(10, 210)
IMAGES = np.arange(300)  # image i is the number i


def original(images):
    """Between two classes, more and more the second."""
    second = images / 1000
    return np.stack([1 - second, second], axis=1)


def decided(images):
    return np.zeros(len(images), bool)


def run(exported, *, saved=None, undecided=decided):
    saved = original(IMAGES[ROWS]) if saved is None else saved
    return check(exported, original, IMAGES, ROWS, saved=saved, undecided=undecided)


def moved(number, by):
    """As the original, but that this image's first class is less probable by this much."""

    def exported(images):
        probabilities = original(images)
        probabilities[images == number] += [-by, by]
        return probabilities

    return exported


def test_the_largest_difference_of_all_images_is_said():
    agreement = run(moved(150, 3e-5))
    assert agreement == Agreement(200, pytest.approx(3e-5), pytest.approx(3e-5), 1.0, 0)


def test_what_training_saved_is_compared_apart():
    saved = original(IMAGES[ROWS])
    saved[7] += [2e-5, -2e-5]
    agreement = run(original, saved=saved)
    assert (agreement.difference, agreement.saved_difference) == (0, pytest.approx(2e-5))
    saved[7] += [2e-3, -2e-3]
    with pytest.raises(ExportError, match=r"^the exported model's probabilities differ by up to 0.002 from those"):
        run(original, saved=saved)


@pytest.mark.parametrize("by", [1.1 * LIMIT, 0.3, np.nan])
def test_a_difference_is_refused_with_its_size_and_how_many_images_have_it(by):
    with pytest.raises(ExportError, match=r"differ by up to (0.00011|0.3|nan) from the model's own \(1 of 200 images"):
        run(moved(150, by))


def test_an_image_alone_counts_too():
    def alone(images):
        return original(images) + (0.01 if len(images) == 1 else 0)

    with pytest.raises(ExportError, match=r"differ by up to 0.01 from the model's own \(1 of 200"):
        run(alone)


def test_an_image_that_the_original_may_decide_either_way_is_left_aside_and_counted():
    asked = []

    def undecided(images):
        asked.extend(images.tolist())
        return images == 150

    agreement = run(moved(150, 0.4), undecided=undecided)
    assert asked == [150]
    assert agreement == Agreement(200, 0.0, 0.0, 199 / 200, 1)
    with pytest.raises(ExportError, match=r"differ by up to 0.4 .* \(1 of 200"):
        run(moved(151, 0.4), undecided=undecided)


def test_another_class_is_refused_unless_the_two_are_as_near_as_the_limit():
    def close(images):
        return np.full((len(images), 2), 0.5) + np.array([0.4, -0.4]) * LIMIT

    def swapped(images):
        return close(images)[:, ::-1]

    saved = close(ROWS)
    agreement = check(swapped, close, IMAGES, ROWS, saved=saved, undecided=decided)
    assert (agreement.agreement, agreement.difference) == (0, pytest.approx(0.8 * LIMIT))

    def apart(images):
        return np.full((len(images), 2), 0.5) + np.array([0.6, -0.6]) * LIMIT

    with pytest.raises(ExportError, match="in the class of 200 images"):
        check(swapped, apart, IMAGES, ROWS, saved=apart(ROWS), undecided=decided)


def test_probabilities_of_other_classes_are_refused():
    with pytest.raises(ExportError, match=r"must give probabilities \(200, 2\), received \(200, 3\)"):
        run(lambda images: np.zeros((len(images), 3)))
