"""Model files as a stranger could make them: each would run code, reach another file, or fill the memory."""

from __future__ import annotations

import functools
import io
import json
import operator
import os
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Write = Callable[[Path], object]


def network(**layer: Any) -> dict[str, Any]:
    """The configuration of a model of two layers, the second of which is changed."""
    dense = {
        "module": "keras.layers",
        "class_name": "Dense",
        "config": {"name": "dense", "units": 2},
        "registered_name": None,
        "name": "dense",
        "inbound_nodes": [],
    }
    images = {"module": "keras.layers", "class_name": "InputLayer", "config": {"batch_shape": [None, 3], "name": "in"}}
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "model", "layers": [images, {**dense, **layer}]},
        "registered_name": None,
    }


def settings(**config: Any) -> dict[str, Any]:
    """The same with other settings of the second layer."""
    return network(config={"name": "dense", "units": 2, **config})


def hostile_configs(touched: Path) -> dict[str, Any]:
    """Configurations by what is wrong with them; those that run code make a file, `touched`."""
    shell = f"touch {touched}"
    value = {"class_name": "__lambda__", "config": {"value": ["4wEAAAA=", None, None]}}
    return {
        "a Lambda layer": network(class_name="Lambda", config={"name": "dense", "function": value}),
        "a Lambda layer by another module": network(module="keras.src.layers", class_name="Lambda"),
        "the system's shell": network(module="os", class_name="system", config=shell),
        "a function of Python": settings(activation={"class_name": "function", "config": "eval", "module": "builtins"}),
        "a subprocess": settings(activation={"module": "subprocess", "class_name": "Popen", "config": {"args": shell}}),
        "a download": settings(
            kernel_initializer={"module": "keras.utils", "class_name": "get_file", "config": {"fname": "x"}}
        ),
        "a custom object": network(registered_name="stranger>Dense"),
        "a custom module": network(module="stranger_layers", class_name="Dense"),
        "a saved model": network(class_name="TFSMLayer", config={"name": "dense", "filepath": "/tmp/x"}),
        "a lookup in a file": network(class_name="StringLookup", config={"vocabulary": "/etc/passwd"}),
        "a PyTorch module": network(class_name="TorchModuleWrapper", config={"module": "gASVAAAAAA=="}),
        "a JAX function": network(class_name="JaxLayer", config={"call_fn": value}),
        "a lambda as an initializer": settings(kernel_initializer=value),
        "a type of TensorFlow": settings(activation={"class_name": "__typespec__", "config": [], "spec_name": "x"}),
        "a lambda as a loss": network() | {"compile_config": {"loss": value}},
        "the names in a list": network(class_name=["Dense"]),
        "the module in a list": network(module=["os"]),
        "no class": network(class_name=None),
        "a private function of Keras": network(module="keras.src.utils.python_utils", class_name="func_load"),
        "a layer that fills the memory": settings(units=10**12),
        "a list": [network()],
        "nothing": {},
    }


def hostile_networks(touched: Path) -> dict[str, Write]:
    """Writers of .keras files by what is wrong with the file."""
    good, evil = json.dumps(network()), json.dumps(network(class_name="Lambda"))
    parts = {"config.json": good, "metadata.json": "{}", "model.weights.h5": weights()}
    packed = {"compress_type": zipfile.ZIP_DEFLATED}
    named: dict[str, Write] = {
        f"names {what}": functools.partial(zipped, parts | {"config.json": json.dumps(config)})
        for what, config in hostile_configs(touched).items()
    }
    for what, write in hostile_weights().items():
        named[f"weights with {what}"] = functools.partial(_with_weights, parts, write)
    return named | {
        "no JSON": functools.partial(zipped, parts | {"config.json": "{"}),
        "endless lists": functools.partial(zipped, parts | {"config.json": "[" * 100_000}),
        "a bomb as the configuration": functools.partial(zipped, parts | {"config.json": " " * 10**8}, **packed),
        "a bomb as the weights": functools.partial(zipped, parts | {"model.weights.h5": bytes(10**8)}, **packed),
        "a member that leads out": functools.partial(zipped, parts | {"../stranger.py": "x"}),
        "an absolute member": functools.partial(zipped, parts | {"/tmp/stranger.py": "x"}),
        "assets": functools.partial(zipped, parts | {"assets/vocabulary.txt": "x"}),
        "two configurations": functools.partial(_twice, parts, "config.json", evil),
        "no weights": functools.partial(zipped, {"config.json": good}),
        "nothing": functools.partial(zipped, {}),
        "its end cut off": lambda path: (zipped(parts, path), path.write_bytes(path.read_bytes()[:-300])),
        "no zip": lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"),
        "no byte": lambda path: path.write_bytes(b""),
        "a link as a member": functools.partial(_linked, parts),
    }


def zipped(members: dict[str, str | bytes], path: Path, compress_type: int = zipfile.ZIP_STORED) -> None:
    """Write a zip of these members."""
    with zipfile.ZipFile(path, "w", compress_type) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _with_weights(parts: dict[str, str | bytes], write: Write, path: Path) -> None:
    inner = path.with_name("inner.h5")
    write(inner)
    zipped(parts | {"model.weights.h5": inner.read_bytes()}, path)


def _twice(parts: dict[str, str | bytes], name: str, other: str, path: Path) -> None:
    zipped(parts, path)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(name, other)


def _linked(parts: dict[str, str | bytes], path: Path) -> None:
    zipped(parts, path)
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")


def weights() -> bytes:
    """What the model of `network` needs."""
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        variables = file.create_group("layers/dense/vars")
        variables["0"], variables["1"] = np.zeros((3, 2), np.float32), np.zeros(2, np.float32)
    return content.getvalue()


def hostile_weights() -> dict[str, Write]:
    """Writers of HDF5 files by what is wrong with the file."""
    import h5py

    def with_file(change: Callable[[Any], object]) -> Write:
        def write(path: Path) -> None:
            path.write_bytes(weights())
            with h5py.File(path, "a") as file:
                change(file)

        return write

    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
        file.create_virtual_dataset("v", layout)

    def deep(file: Any) -> None:
        file.create_group("/".join(["g"] * 150))

    def loop(file: Any) -> None:
        file["layers/again"] = file["layers"]

    lambda_model = {"class_name": "Sequential", "config": {"layers": [{"class_name": "Lambda", "config": {}}]}}
    return {
        "a link to another file": with_file(lambda file: file.update({"x": h5py.ExternalLink("/etc/passwd", "/x")})),
        "a soft link": with_file(lambda file: file.update({"x": h5py.SoftLink("/layers")})),
        "data in another file": with_file(
            lambda file: file.create_dataset("x", (4,), "f4", external=[("/etc/passwd", 0, 16)])
        ),
        "data put together of other files": with_file(virtual),
        "a claim of terabytes": with_file(
            lambda file: file.create_dataset("x", (10**6, 10**6), "f4", chunks=(100, 100))
        ),
        "zeros without end": with_file(
            lambda file: file.create_dataset("x", data=np.zeros(10**8, np.int8), chunks=(10**6,), compression="gzip")
        ),
        "texts": with_file(lambda file: file.create_dataset("x", data=["a", "b"])),
        "a record of several types": with_file(
            lambda file: file.create_dataset("x", data=np.zeros(2, np.dtype([("a", "f4"), ("b", "i8")])))
        ),
        "an unusual filter": with_file(lambda file: file.create_dataset("x", data=np.arange(99), scaleoffset=0)),
        "a named type": with_file(lambda file: file.update({"x": np.dtype("f8")})),
        "groups in circles": with_file(loop),
        "groups without end": with_file(deep),
        "a whole model with a Lambda": with_file(
            lambda file: file.attrs.update({"model_config": json.dumps(lambda_model)})
        ),
        "its end cut off": lambda path: path.write_bytes(weights()[:1500]),
        "no HDF5": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(5000)),
        "no byte": lambda path: path.write_bytes(b""),
    }


class Pickled:
    """Makes a file when it is read by pickle."""

    def __init__(self, touched: Path) -> None:
        self._touched = touched

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._touched}",)


def pickled_array(touched: Path) -> bytes:
    """A .npy of objects, which NumPy keeps as a pickle."""
    content = io.BytesIO()
    np.save(content, np.array([Pickled(touched)] * 3, object), allow_pickle=True)
    return content.getvalue()


def endless_array() -> bytes:
    """A .npy that claims an exabyte."""
    header = repr({"descr": "<f8", "fortran_order": False, "shape": (10**17,)}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(8)


def hostile_machines(good: Path, touched: Path) -> Iterator[tuple[str, Write]]:
    """Writers of skops files by what is wrong with the file; `good` is one as svm.py writes it."""
    import skops.io
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.preprocessing import FunctionTransformer

    with zipfile.ZipFile(good) as archive:
        parts: dict[str, str | bytes] = {name: archive.read(name) for name in archive.namelist()}
    array = next(name for name in parts if name.endswith(".npy"))
    unexpected = {
        "a path": Path("/etc/passwd"),
        "a shell command": functools.partial(os.system, f"touch {touched}"),
        "a method to be called": operator.methodcaller("system", "true"),
        "a function": FunctionTransformer(np.exp),
        "a type that skops trusts": RandomForestClassifier(2),
        "a state of random numbers": np.random.default_rng(0),
        "a set": {1, 2},
    }
    for what, value in unexpected.items():
        yield what, functools.partial(skops.io.dump, {"model": value})
    schema = json.loads(parts["schema.json"])
    evil = {"__class__": "system", "__module__": "os", "__loader__": "TypeNode"}
    yield "a type in place of a name", functools.partial(zipped, parts | {"schema.json": json.dumps(schema | evil)})
    other = schema | {"__loader__": "ConstructorFromReduceNode"}
    yield "another way to load", functools.partial(zipped, parts | {"schema.json": json.dumps(other)})
    yield "an array of pickles", functools.partial(zipped, parts | {array: pickled_array(touched)})
    yield "an array without end", functools.partial(zipped, parts | {array: endless_array()})
    yield "an array cut off", functools.partial(zipped, parts | {array: parts[array][:100]})
    yield "a bomb", functools.partial(zipped, parts | {array: bytes(10**8)}, compress_type=zipfile.ZIP_DEFLATED)
    yield "a member that leads out", functools.partial(zipped, parts | {"../stranger.npy": b"x"})
    yield "no schema", functools.partial(zipped, {"0.npy": b"x"})
    yield "a schema without end", functools.partial(zipped, parts | {"schema.json": "[" * 100_000})
    yield "two schemas", functools.partial(_twice, parts, "schema.json", "{}")
    yield "its end cut off", lambda path: path.write_bytes(good.read_bytes()[:-100])
    yield "a pickle", lambda path: path.write_bytes(b"\x80\x04cposix\nsystem\n.")
