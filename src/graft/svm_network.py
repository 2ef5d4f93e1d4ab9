"""A fitted SVM as a Keras network with the same probabilities, for runtimes that have no scikit-learn."""

from __future__ import annotations

import copy
import functools
import itertools
import operator
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.kernel_approximation import Nystroem
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

if TYPE_CHECKING:
    import keras


def machine_network(model: CalibratedClassifierCV, storage: str = "float32") -> keras.Model:
    """The machine's predict_proba: features (n, features) to probabilities (n, classes), in float32.

    Args:
        model: fitted by svm.fit_svm.
        storage: float32 or float16, to which features are rounded and in which, as by scikit-learn, they are scaled.
    """
    import keras

    calibrated = model.calibrated_classifiers_[0]
    (calibrator,) = calibrated.calibrators
    steps: Pipeline = calibrated.estimator
    inputs = keras.Input((steps.n_features_in_,), name="features")
    scores = _scores(_scaled(inputs, steps[0], storage), steps)
    if scores.shape[1] == 1:
        scores = keras.ops.concatenate([-scores, scores], axis=1)
    probabilities = keras.ops.softmax(scores * float(calibrator.beta_))
    return keras.Model(inputs, probabilities, name="svm")


def undecided(model: CalibratedClassifierCV, features: np.ndarray, margin: float) -> np.ndarray:
    """Which rows of features (n, features) an SVM of more than two classes may decide either way, as booleans (n,).

    Each pair of classes casts a whole vote by the sign of its decision value, so that probabilities jump where one is
    zero: there the last digit of a feature, which no two runtimes share, decides.

    Args:
        model: fitted by svm.fit_svm.
        features: as the machine takes them.
        margin: a decision value nearer to zero than this is undecided; images at a distance have about one.
    """
    steps = model.calibrated_classifiers_[0].estimator
    if not isinstance(steps[-1], SVC) or len(steps.classes_) == 2:
        return np.zeros(len(features), bool)
    by_pair = copy.copy(steps[-1]).set_params(decision_function_shape="ovo")
    return np.asarray((np.abs(by_pair.decision_function(steps[:-1].transform(features))) < margin).any(axis=1))


def _scaled(features: Any, scaler: StandardScaler, storage: str) -> Any:
    """Features as StandardScaler gives them, which computes in the type that it is given."""
    import keras

    def rounded(values: Any) -> Any:
        if storage == "float32":
            return values
        # tf2onnx leaves out two casts in a row, so that nothing would be rounded
        between = keras.ops.expand_dims(keras.ops.cast(values, storage), 1)
        return keras.ops.cast(keras.ops.squeeze(between, 1), "float32")

    mean, scale = (values.astype(storage).astype(np.float32) for values in (scaler.mean_, scaler.scale_))
    return rounded(rounded(rounded(features) - mean) / scale)


def _scores(features: Any, steps: Pipeline) -> Any:
    """decision_function of scaled features: (n, classes), or (n, 1) of two classes."""
    machine = steps[-1]
    if not isinstance(machine, SVC):
        weights = machine.coef_
        if isinstance(steps[1], Nystroem):
            gamma = steps[1].gamma or 1 / features.shape[1]
            features = _kernel(features, steps[1].components_, "rbf", float(gamma))
            weights = weights @ steps[1].normalization_  # in double precision, for its entries are large
        return _dense(features, weights, machine.intercept_)
    linear = machine.kernel == "linear"
    if not linear:
        features = _kernel(features, machine.support_vectors_, machine.kernel, float(machine._gamma), machine)
    if len(machine.classes_) == 2:
        return _dense(features, machine.coef_ if linear else machine.dual_coef_, machine.intercept_)
    return _votes(_decisions_of_weights(features, machine) if linear else _decisions_of_kernels(features, machine))


def _dense(inputs: Any, weights: np.ndarray, bias: np.ndarray | None = None) -> Any:
    """Inputs times the transposed weights (outputs, inputs), as a layer, so that a saved model keeps them apart."""
    import keras

    layer = keras.layers.Dense(len(weights), use_bias=bias is not None)
    outputs = layer(inputs)
    values = [weights.T] if bias is None else [weights.T, bias]
    layer.set_weights([value.astype(np.float32) for value in values])
    return outputs


def _kernel(features: Any, vectors: np.ndarray, name: str, gamma: float, machine: SVC | None = None) -> Any:
    """The kernel (n, vectors) between features and vectors."""
    import keras

    products = _dense(features, vectors)
    if name == "poly" and machine is not None:
        return functools.reduce(operator.mul, [products * gamma + float(machine.coef0)] * machine.degree)
    norms = keras.ops.sum(keras.ops.square(features), axis=1, keepdims=True)
    distances = norms - 2.0 * products + np.square(vectors, dtype=np.float64).sum(axis=1).astype(np.float32)
    return keras.ops.exp(keras.ops.maximum(distances, 0.0) * -gamma)


def _pairs(classes: int) -> list[tuple[int, int]]:
    """Of class numbers, in libsvm's order."""
    return list(itertools.combinations(range(classes), 2))


def _decisions_of_weights(features: Any, machine: SVC) -> Any:
    """As _decisions_of_kernels, of a linear machine by one weight for each feature and pair."""
    import keras

    classes = len(machine.classes_)
    places = np.zeros((classes, classes), np.int32)
    for place, (one, other) in enumerate(_pairs(classes)):
        places[one, other] = places[other, one] = place
    by_pair = keras.ops.take(_dense(features, machine.coef_, machine.intercept_), places.ravel(), axis=1)
    return keras.ops.reshape(by_pair, (-1, classes, classes))


def _decisions_of_kernels(kernels: Any, machine: SVC) -> Any:
    """The decision value of each pair of classes, positive for the one of lower number: (n, classes, classes).

    Symmetric; the diagonal has no meaning. A pair sees the support vectors of its two classes alone. libsvm keeps the
    coefficients of a class's vectors against the others, in their order.
    """
    import keras

    classes = len(machine.classes_)
    ends = np.cumsum(machine.n_support_)
    parts = []
    for number, (start, end) in enumerate(zip(ends - machine.n_support_, ends, strict=True)):
        against = np.insert(machine.dual_coef_[:, start:end], number, 0.0, axis=0)
        parts.append(_dense(kernels[:, start:end], against))
    sums = keras.ops.stack(parts, axis=1)
    intercepts = np.zeros((classes, classes), np.float32)
    for value, (one, other) in zip(machine.intercept_, _pairs(classes), strict=True):
        intercepts[one, other] = intercepts[other, one] = value
    return sums + keras.ops.transpose(sums, (0, 2, 1)) + intercepts


def _votes(decisions: Any) -> Any:
    """The decisions of pairs (n, classes, classes) to scores (n, classes): votes, and below one vote the confidence."""
    import keras

    classes = decisions.shape[1]
    signs = np.triu(np.ones((classes, classes), np.float32), 1)
    signs -= signs.T
    won = keras.ops.cast(decisions >= 0, "float32")  # by the one of lower number
    votes = keras.ops.sum(won * signs, axis=2) + np.arange(classes, dtype=np.float32)
    confidence = keras.ops.sum(decisions * signs, axis=2)
    return votes + confidence / (3 * (keras.ops.abs(confidence) + 1))
