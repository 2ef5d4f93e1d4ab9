import json
from pathlib import Path

import hostile_files
import keras
import pytest

from graft import backbones, networks
from graft.keras_configs import ALLOWED, check_old_config, read_config
from graft.storage import ArtifactError

FILE = Path("model.keras")
FOR_OTHERS = {  # text, sound, boxes, and pairs of images with their labels
    *("CategoryEncoding", "CutMix", "Discretization", "Embedding", "GroupedQueryAttention", "MaxNumBoundingBoxes"),
    *("MelSpectrogram", "MixUp", "ReversibleEmbedding", "STFTSpectrogram"),
}
UNSAFE = {
    *("FlaxLayer", "HashedCrossing", "Hashing", "IntegerLookup", "JaxLayer", "Lambda", "StringLookup", "TFSMLayer"),
    *("TextVectorization", "TorchModuleWrapper"),
}


def test_every_layer_of_keras_was_decided_about():
    """A new version of Keras brings new ones, which may run code."""
    classes = [getattr(keras.layers, name) for name in dir(keras.layers)]
    layers = {one.__name__ for one in classes if isinstance(one, type) and issubclass(one, keras.layers.Layer)}
    assert layers == ALLOWED["keras.layers"] | FOR_OTHERS | UNSAFE | {"Layer", "Wrapper"}
    assert not ALLOWED["keras.layers"] & (FOR_OTHERS | UNSAFE)


@pytest.mark.parametrize("module", ["losses", "metrics"])
def test_all_losses_and_metrics_pass_but_those_that_wrap_a_function(module):
    of_keras = getattr(keras, module)
    names = {name for name in dir(of_keras) if isinstance(getattr(of_keras, name), type)}
    assert names - {"Loss", "Metric", "MeanMetricWrapper"} == ALLOWED[f"keras.{module}"]


@pytest.mark.parametrize("application", ["VGG16", "ResNet50V2", "MobileNetV3Small", "EfficientNetV2B0", "DenseNet121"])
def test_bases_with_their_preprocessing_pass(application):
    images = networks.image_input(80)
    base = getattr(keras.applications, application)(weights=None, include_top=False, input_shape=(64, 64, 3))
    maps = base(networks.base_input(images, application, 64))
    model = keras.Model(images, keras.layers.Dense(2)(networks.pool(maps, "avg")))
    loss, metrics = keras.losses.CategoricalCrossentropy(label_smoothing=0.1), [keras.metrics.AUC(), "accuracy"]
    model.compile(keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(0.1, 9)), loss, metrics=metrics)
    text = json.dumps(keras.saving.serialize_keras_object(model)).encode()
    assert read_config(text, FILE)["class_name"] == "Functional"
    assert backbones.application(application)


def test_what_stands_deep_inside_is_named():
    hidden = {"class_name": "__lambda__", "config": {"value": "x"}}
    config = hostile_files.settings(kernel_regularizer={"anything": [{"at_any_depth": [hidden]}]})
    with pytest.raises(ArtifactError, match=r"^model\.keras is refused: its configuration names '__lambda__', which"):
        read_config(json.dumps(config).encode(), FILE)


def test_a_name_that_a_stranger_registered_is_named():
    config = hostile_files.network(registered_name="stranger>Dense")
    with pytest.raises(ArtifactError, match=r"names .keras\.layers\.Dense. registered as 'stranger>Dense', which"):
        read_config(json.dumps(config).encode(), FILE)


def test_a_whole_model_of_keras_2_passes_unless_it_brings_code():
    old = {"class_name": "Functional", "config": {"layers": [{"class_name": "TFOpLambda", "config": {"name": "x"}}]}}
    check_old_config(json.dumps(old).encode(), FILE)
    for layer in ({"class_name": "Lambda"}, {"class_name": "Dense", "module": "stranger"}, {"class_name": ["Lambda"]}):
        old["config"] = {"layers": [layer]}
        with pytest.raises(
            ArtifactError, match=r"^model\.keras is refused: its configuration names .*, which runs code"
        ):
            check_old_config(json.dumps(old).encode(), FILE)
