"""The pyfunc that MLflow logs, loads and serves: one for every kind of model. served_images.py says what it takes.

`mlflow.pyfunc.load_model(uri, model_config={"max_images": 1000})` changes the limits that were logged with the model:
max_images, max_image_mb and max_pixels.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import GenericAlias
from typing import Any

import numpy as np

from graft.served_images import InputError, Limits, image_pixels, listed
from graft.serving import BATCH, Classifier, load_classifier

ENVIRONMENT = {
    "TF_ENABLE_ONEDNN_OPTS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}  # as in training; TensorFlow's import reads it


def _answers(classifier: Classifier, probabilities: np.ndarray) -> list[dict[str, Any]]:
    """What is said of each row of calibrated probabilities (n, classes)."""
    classes, abstains = classifier.classes, classifier.abstains(probabilities).tolist()
    return [
        {
            "class": classes[row.argmax()],
            "probability": float(row.max()),
            "probabilities": dict(zip(classes, row.tolist(), strict=True)),
            "abstain": abstain,
        }
        for row, abstain in zip(probabilities, abstains, strict=True)
    ]


def _classify(
    model_input: Any, classifier: Classifier, limits: Limits, lock: threading.Lock, *, paths: bool
) -> list[dict[str, Any]]:
    """Answers to the images in their order, decoded and classified a batch at a time."""
    answers, images = [], listed(model_input, limits)
    for start in range(0, len(images), BATCH):
        batch = enumerate(images[start : start + BATCH], start)
        pixels = np.stack([image_pixels(image, place, classifier, limits, paths=paths) for place, image in batch])
        with lock:  # neither Keras nor an SVM's workers are made for several threads
            probabilities = classifier.probabilities(pixels)
        answers += _answers(classifier, probabilities)
    return answers


def _register_with_mlflow() -> None:
    """Hand MLflow the model whose code this file is."""
    import mlflow
    from mlflow.environment_variables import _MLFLOW_IS_IN_SERVING_ENVIRONMENT as SERVED
    from mlflow.exceptions import MlflowException
    from pydantic import create_model

    kinds = {"class": str, "probability": float, "probabilities": dict[str, float], "abstain": bool}
    fields: dict[str, Any] = {name: (kind, ...) for name, kind in kinds.items()}
    answer = create_model("Answer", **fields)

    class ImageClassifier(mlflow.pyfunc.PythonModel):
        """Images in; the class, its probability, every class's probability and whether to abstain out."""

        _skip_type_hint_validation = True  # by which MLflow refuses arrays; served_images.py checks

        def load_context(self, context: Any) -> None:
            """Load from the artifacts `model` and, for an SVM, `source`."""
            for name, value in ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            source = context.artifacts.get("source")
            self.limits = Limits.read(context.model_config)
            self.classifier = load_classifier(Path(context.artifacts["model"]), Path(source) if source else None)
            self.lock = threading.Lock()

        def predict(
            self, context: Any, model_input: list[Any], params: dict[str, Any] | None = None
        ) -> list[dict[str, Any]]:
            """One {class, probability, probabilities, abstain} for each image; safe to call from several threads."""
            try:
                return _classify(model_input, self.classifier, self.limits, self.lock, paths=not SERVED.get())
            except InputError as error:
                raise MlflowException.invalid_parameter_value(str(error)) from None

        predict.__annotations__["return"] = GenericAlias(list, (answer,))  # from which MLflow makes the signature

    mlflow.models.set_model(ImageClassifier())


if __name__ != "graft.pyfunc_model":  # MLflow runs the file under a name of its own; whoever imports it needs no MLflow
    _register_with_mlflow()
