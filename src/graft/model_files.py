"""Model files, looked through before a library reads them that would do what they say.

Nothing here is for files of this pipeline alone: a person may be given any of them. What is refused is what could run
code, reach other files, or unpack to more than it is. A model that passes can still answer wrongly, or slowly.
"""

from __future__ import annotations

import io
import json
import math
import random
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.lib import format as npy

from graft.hdf5_files import NUMBERS, check_weights
from graft.keras_configs import MOST_TEXT, read_config
from graft.storage import ArtifactError

if TYPE_CHECKING:
    import keras

CONFIG, WEIGHTS, METADATA = "config.json", "model.weights.h5", "metadata.json"  # Keras' names
SCHEMA, ARRAY = "schema.json", re.compile(r"\d+\.npy")  # skops' names
DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)

# By module, what a machine of svm.py consists of, and how skops is to read it: (class, loader).
MACHINE = {
    "builtins": {("dict", "DictNode"), ("list", "ListNode"), ("tuple", "TupleNode"), ("str", "JsonNode")}
    | {(name, loader) for name in ("str", "int", "float", "bool") for loader in ("TypeNode", "JsonNode")},
    "numpy": {(f"{kind}", "NdArrayNode") for kind in ("ndarray", "float32", "float64", "int32", "int64", "bool")},
    "sklearn.calibration": {
        (name, "ObjectNode") for name in ("CalibratedClassifierCV", "_CalibratedClassifier", "_TemperatureScaling")
    },
    "sklearn.kernel_approximation": {("Nystroem", "ObjectNode")},
    "sklearn.linear_model._sgd_fast": {("Hinge", "LossNode")},
    "sklearn.linear_model._stochastic_gradient": {("SGDClassifier", "ObjectNode")},
    "sklearn.pipeline": {("Pipeline", "ObjectNode")},
    "sklearn.preprocessing._data": {("StandardScaler", "ObjectNode")},
    "sklearn.svm._classes": {("SVC", "ObjectNode")},
}


def load_network(path: Path) -> keras.Model:
    """The model of a .keras file, without its optimizer.

    Raises:
        ArtifactError: the file is missing or damaged, names what is not in keras_configs.NAMES, or holds anything
            besides configuration and weights.
    """
    import keras

    with _open(path) as archive:
        names = set(archive.namelist())
        if not {CONFIG, WEIGHTS} <= names <= {CONFIG, WEIGHTS, METADATA}:
            other = sorted(names - {CONFIG, WEIGHTS, METADATA})
            received = f"also {other[0][:200]!r}" if other else f"only {', '.join(sorted(names)) or 'nothing'}"
            raise ArtifactError(
                f"{path} is refused: it must hold {CONFIG}, {METADATA} and {WEIGHTS}, received {received}"
            )
        config = read_config(_text(archive, CONFIG, path), path)
        stored = check_weights(path, io.BytesIO(archive.read(WEIGHTS)))
    _check_weight_count(config, stored, path)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # of whichever layer it is
        raise ArtifactError(f"{path} is not a readable model: {_first_line(error)}") from error


def load_architecture(path: Path, weights: Path) -> keras.Model:
    """The network that a JSON file describes, with the weights that lie beside it.

    Raises:
        ArtifactError: a file is missing or damaged, names what is not in keras_configs.NAMES, or they do not fit.
    """
    import keras

    config = _architecture(path)
    _check_weight_count(config, check_weights(weights), path)
    try:
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
        model.load_weights(weights)
    except Exception as error:
        raise ArtifactError(f"{path} and {weights} are not a readable network: {_first_line(error)}") from error
    return model


def check_machine(path: Path) -> None:
    """Refuse a skops file that holds anything but what a machine of svm.py consists of.

    skops by itself trusts every class of scikit-learn and SciPy.

    Raises:
        ArtifactError: the file is missing, damaged or unsafe; what it names is said.
    """
    with _open(path) as archive:
        if other := [name for name in archive.namelist() if name != SCHEMA and not ARRAY.fullmatch(name)]:
            raise ArtifactError(f"{path} is refused: it must hold {SCHEMA} and arrays, received {other[0][:200]!r}")
        for array in set(archive.namelist()) - {SCHEMA}:
            _check_array(archive, array, path)
        try:
            schema = json.loads(_text(archive, SCHEMA, path))
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"{path} is refused: its {SCHEMA} is not JSON: {str(error)[:200]}") from None
        for node in _nodes(schema):
            module, name, loader = (node.get(key) for key in ("__module__", "__class__", "__loader__"))
            if not isinstance(module, str) or (name, loader) not in MACHINE.get(module, set()):
                raise ArtifactError(
                    f"{path} must hold an SVM written by this pipeline, received also {f'{module}.{name}'[:200]}"
                )


def _check_array(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    """Refuse what is no array of plain numbers, or claims another size than it has."""
    with archive.open(name) as file:
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(file)]
        shape, _, kind = read_header(file)
        claimed, held = math.prod(shape) * kind.itemsize, archive.getinfo(name).file_size - file.tell()
    if kind.kind not in NUMBERS or claimed != held:
        raise ArtifactError(
            f"{path} is refused: {name!r} claims {claimed:,} bytes of type {str(kind)[:80]}, received {held:,}"
        )


def _nodes(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, dict):
        if any(key in value for key in ("__module__", "__class__", "__loader__")):
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _nodes(item)


@contextmanager
def _open(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip whose members are stored as they are, each once, so that nothing in it can grow.

    Raises:
        ArtifactError: it is missing, no zip, or packed otherwise.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            for member in members:
                name = member.filename[:200]
                if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                    raise ArtifactError(f"{path} is refused: {name!r} must be stored as it is, received it packed")
                if archive.getinfo(member.filename) is not member:
                    raise ArtifactError(f"{path} is refused: {name!r} stands in it twice")
            if sum(member.file_size for member in members) > path.stat().st_size:
                raise ArtifactError(f"{path} is refused: its members are larger than the file")
            yield archive
    except ArtifactError:
        raise
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; `dvc repro` makes it") from None
    except DAMAGE as error:
        raise ArtifactError(f"{path} is damaged or no model file: {_first_line(error)}") from None


def _text(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    if archive.getinfo(name).file_size > MOST_TEXT:
        raise ArtifactError(f"{path} is refused: {name} in it has more than {MOST_TEXT:,} bytes")
    return archive.read(name)


def _architecture(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return read_config(file.read(MOST_TEXT + 1), path)
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; `dvc repro` makes it") from None


def _check_weight_count(config: dict[str, Any], stored: int, path: Path) -> None:
    """Refuse layers that would take more memory than the weights to fill them have.

    The network is built without its memory, and Python's random numbers are left as they were.
    """
    import keras

    state = random.getstate()
    try:
        with keras.StatelessScope(initialize_variables=False):
            model = keras.saving.deserialize_keras_object(_untrained(config), safe_mode=True)
        wanted = sum(math.prod(weight.shape) for weight in model.weights)
    except Exception as error:  # of whichever layer it is
        raise ArtifactError(f"{path} is not a readable network: {_first_line(error)}") from error
    finally:
        random.setstate(state)
    if wanted > stored:
        raise ArtifactError(f"{path} is refused: its layers have {wanted:,} weights, and the file of them {stored:,}")


def _untrained(value: Any) -> Any:
    """A configuration without optimizers, of the model and of those in it, which have variables at once."""
    if isinstance(value, dict):
        return {key: _untrained(item) for key, item in value.items() if key != "compile_config"}
    return [_untrained(item) for item in value] if isinstance(value, list) else value


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
