"""Maps of the features in two dimensions, for people to see which classes lie apart."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

LEAST_VARIANCE = 0.1  # of a feature, relative to the average feature's
COMPONENTS = 50  # kept for t-SNE, as van der Maaten and Hinton (2008) did
PERPLEXITY = 30.0


def draw_stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Row numbers, ascending, of at most so many images; each class keeps its share, to within one image.

    Args:
        labels: class numbers (n,).
        count: of the images to keep; all where there are no more.
        seed: of the draw.
    """
    if len(labels) <= count:
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    drawn = pd.Series(labels[order]).groupby(labels[order])
    quantiles = (drawn.cumcount() + 0.5) / drawn.transform("size")
    return np.sort(order[np.argsort(quantiles.to_numpy(), kind="stable")[:count]])


def project(features: np.ndarray, seed: int) -> pd.DataFrame:
    """The two leading principal components of standardised features, and t-SNE of the leading fifty.

    A feature's variance counts as a tenth of the average one at least; else one that is silent for all images but a few
    would place these far away and all others on one spot.

    Distances between far clusters of t-SNE, and the clusters' sizes, mean nothing. The axes point to where the largest
    weight of a component is positive. One thread computes: sums of several would end in changing digits, which
    t-SNE makes large.

    Args:
        features: (n, features), one row per image.
        seed: of both methods.

    Returns:
        pca_x, pca_y, tsne_x and tsne_y, one row per image, centred at zero. Zeros where no two images differ.
    """
    rows = _standardised(features.astype(np.float64))
    count = min(COMPONENTS, *rows.shape)
    leading = np.zeros((len(rows), max(2, count)))
    nearby = np.zeros((len(rows), 2))
    if rows.any():
        perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
        with threadpool_limits(1):
            leading[:, :count] = PCA(count, random_state=seed).fit_transform(rows)
            nearby = TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(leading)
    columns = {"pca_x": leading[:, 0], "pca_y": leading[:, 1], "tsne_x": nearby[:, 0], "tsne_y": nearby[:, 1]}
    return pd.DataFrame(columns, dtype=np.float64)


def _standardised(features: np.ndarray) -> np.ndarray:
    variances = features.var(axis=0)
    floor = LEAST_VARIANCE * variances.mean()
    return (features - features.mean(axis=0)) / np.sqrt(np.maximum(variances, floor)) if floor else features * 0
