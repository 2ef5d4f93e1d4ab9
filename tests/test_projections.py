from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from graft.projections import draw_stratified, project


def clusters(n: int, width: int = 20) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = np.arange(n) % 3
    centres = 6 * generator.normal(size=(3, width))
    return (generator.normal(size=(n, width)) + centres[labels]).astype(np.float32), labels


def test_principal_components_are_those_of_the_standardised_features() -> None:
    features, _ = clusters(90)
    rows = (features - features.mean(axis=0)) / features.std(axis=0)
    _, _, axes = np.linalg.svd(rows.astype(np.float64), full_matrices=False)
    for name, axis in zip(("pca_x", "pca_y"), axes, strict=False):
        towards = axis * np.sign(axis[np.abs(axis).argmax()])  # the largest weight is positive
        np.testing.assert_allclose(project(features, 0)[name], rows @ towards, atol=1e-4)


@pytest.mark.parametrize("columns", [["pca_x", "pca_y"], ["tsne_x", "tsne_y"]])
def test_neighbours_on_the_map_are_of_one_class(columns: list[str]) -> None:
    features, labels = clusters(90)
    points = project(features, 0)[columns].to_numpy()
    assert KNeighborsClassifier(5).fit(points, labels).score(points, labels) > 0.95


def test_the_same_features_give_the_same_map() -> None:
    features, _ = clusters(150, width=70)
    assert project(features, 3).equals(project(features, 3))


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("width", [1, 2, 60])
def test_few_images_or_features_have_a_map(n: int, width: int) -> None:
    points = project(clusters(n, width)[0], 0)
    assert points.shape == (n, 4)
    assert np.isfinite(points.to_numpy()).all()


def test_identical_images_lie_at_the_origin() -> None:
    assert not project(np.full((6, 3), 0.1, np.float32), 0).to_numpy().any()


def test_a_draw_keeps_the_share_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    drawn = draw_stratified(labels, 100, seed=1)
    assert np.bincount(labels[drawn]).tolist() == [60, 30, 10]
    assert (np.diff(drawn) > 0).all()
    np.testing.assert_array_equal(drawn, draw_stratified(labels, 100, seed=1))
    assert not np.array_equal(drawn, draw_stratified(labels, 100, seed=2))


def test_all_images_are_drawn_where_there_are_few() -> None:
    assert draw_stratified(np.array([1, 0, 1]), 50, seed=0).tolist() == [0, 1, 2]
