"""What a Keras model's configuration may name: what computes with pixels, and nothing that runs code of the file's own.

Keras builds whatever class a configuration names, and its safe mode refuses lambdas alone. So the names are compared
with a list before Keras sees them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from graft.storage import ArtifactError

MOST_TEXT = 2**26  # bytes of a configuration; the largest of keras.applications has 2**21

# All of keras.layers but those that run code of the file's (Lambda and the wrappers of other frameworks' models), that
# read files which the configuration names (the lookups, TFSMLayer), or that are for text, sound or boxes.
LAYERS = """
Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention AlphaDropout Attention AugMix
AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization Bidirectional CenterCrop
Concatenate ContrastLimitedAdaptiveHistogramEqualization Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D
Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Cropping1D Cropping2D Cropping3D Dense DepthwiseConv1D DepthwiseConv2D
Dot Dropout ELU EinsumDense Equalization Flatten GRU GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D
GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
GroupNormalization Identity InputLayer LSTM LSTMCell LayerNormalization LeakyReLU Masking
MaxPooling1D MaxPooling2D MaxPooling3D Maximum Minimum MultiHeadAttention Multiply Normalization PReLU Permute Pipeline
RMSNormalization RNN RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop
RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert
RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation
RandomZoom ReLU RepeatVector Rescaling Reshape Resizing SeparableConv1D SeparableConv2D SimpleRNN SimpleRNNCell Softmax
Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells Subtract
TimeDistributed UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
"""
NAMES = {
    "keras": "DTypePolicy Functional Model Sequential",
    "keras.layers": LAYERS,
    "keras.initializers": """Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity LecunNormal LecunUniform
        Ones Orthogonal RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros""",
    "keras.regularizers": "L1 L1L2 L2 OrthogonalRegularizer",
    "keras.constraints": "MaxNorm MinMaxNorm NonNeg UnitNorm",
    "keras.losses": """BinaryCrossentropy BinaryFocalCrossentropy CTC CategoricalCrossentropy
        CategoricalFocalCrossentropy CategoricalGeneralizedCrossEntropy CategoricalHinge Circle CosineSimilarity Dice
        Hinge Huber KLDivergence LogCosh MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredError
        MeanSquaredLogarithmicError Poisson SparseCategoricalCrossentropy SquaredHinge Tversky""",
    "keras.metrics": """AUC Accuracy BinaryAccuracy BinaryCrossentropy BinaryIoU CategoricalAccuracy
        CategoricalCrossentropy CategoricalHinge ConcordanceCorrelation CosineSimilarity F1Score FBetaScore
        FalseNegatives FalsePositives Hinge IoU KLDivergence LogCoshError Mean MeanAbsoluteError
        MeanAbsolutePercentageError MeanIoU MeanSquaredError MeanSquaredLogarithmicError OneHotIoU OneHotMeanIoU
        PearsonCorrelation Poisson Precision PrecisionAtRecall R2Score Recall RecallAtPrecision RootMeanSquaredError
        SensitivityAtSpecificity SparseCategoricalAccuracy SparseCategoricalCrossentropy SparseTopKCategoricalAccuracy
        SpecificityAtSensitivity SquaredHinge Sum TopKCategoricalAccuracy TrueNegatives TruePositives""",
    "keras.optimizers": "Adadelta Adagrad Adam AdamW Adamax Lion Muon Nadam RMSprop SGD",
    "keras.optimizers.schedules": """CosineDecay CosineDecayRestarts ExponentialDecay PiecewiseConstantDecay
        PolynomialDecay""",
    "keras.src.applications.convnext": "LayerScale",
    "keras.src.applications.inception_resnet_v2": "CustomScaleLayer",
    "keras.src.models.functional": "Functional",
    "keras.src.ops.core": "Cast",
    "keras.src.ops.image": "RGBToGrayscale Resize",
    "keras.src.ops.nn": "LogSoftmax Relu Relu6 Sigmoid Silu Softmax",
    "keras.src.ops.numpy": """Absolute Add Clip Concatenate Divide ExpandDims Flip GetItem Matmul Max Maximum Mean Min
        Minimum Multiply Negative Power Repeat Reshape Sqrt Square Squeeze Stack Subtract Sum Transpose TrueDivide""",
    None: "__ellipsis__ __keras_tensor__ __numpy__ __slice__ __tensor__",
}
ALLOWED = {module: frozenset(names.split()) for module, names in NAMES.items()}
CODE = {"Lambda", "__lambda__", "function", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}


def read_config(text: bytes, path: Path) -> dict[str, Any]:
    """A model's configuration, as Keras serialises it, that names allowed classes alone.

    Args:
        text: JSON.
        path: of the file that holds it, for the message.

    Raises:
        ArtifactError: it is no configuration, or names something else; the message says what.
    """
    config = _parsed(text, path)
    if not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
        raise ArtifactError(f"{path} is refused: expected the configuration of a Keras model")
    for named in _objects(config):
        module, name, registered = (named.get(key) for key in ("module", "class_name", "registered_name"))
        known = isinstance(name, str) and (module is None or isinstance(module, str))
        if not known or name not in ALLOWED.get(module, ()) or registered not in (None, name):
            raise ArtifactError(
                f"{path} is refused: its configuration names {_said(named)}, which is none of the layers, operations"
                " and settings of Keras that a model of images consists of"
            )
    return config


def check_old_config(text: bytes, path: Path) -> None:
    """Refuse a whole model of Keras 2 that brings code along; only its weights are read, so all else may stand there.

    Raises:
        ArtifactError: it names what runs code, or is no JSON.
    """
    for named in _objects(_parsed(text, path)):
        module, name = named.get("module") or "keras", named["class_name"]
        if not isinstance(name, str) or name in CODE or str(module).split(".")[0] not in ("keras", "builtins"):
            raise ArtifactError(
                f"{path} is refused: its configuration names {_said(named)}, which runs code of its own"
            )


def _parsed(text: bytes, path: Path) -> Any:
    if len(text) > MOST_TEXT:
        raise ArtifactError(f"{path} is refused: its configuration has {len(text):,} bytes, more than {MOST_TEXT:,}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is refused: its configuration is not JSON: {str(error)[:200]}") from None


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping that Keras would take for an object, at any depth."""
    if isinstance(value, dict):
        if "class_name" in value or "registered_name" in value:
            yield {"class_name": None} | value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _objects(item)


def _said(named: Mapping[str, Any]) -> str:
    parts = [named.get("module"), named.get("class_name")]
    shown = ".".join(str(part) for part in parts if part is not None)
    registered = named.get("registered_name")
    return f"{shown[:200]!r}" + (
        f" registered as {str(registered)[:200]!r}" if registered not in (None, parts[1]) else ""
    )
