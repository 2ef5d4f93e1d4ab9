"""A first params.yaml for a folder of photos."""

from __future__ import annotations

import subprocess
from importlib import resources
from pathlib import Path

import jinja2

from graft import sources
from graft.errors import GraftError
from graft.params import load_params

# Where phase 2 begins in each base, its pooling, and the pixels it was trained on.
_ROWS = (
    ("vgg16", "VGG16", "flatten", "block4_pool", 224),
    ("resnet50", "ResNet50", "avg", "conv4_block6_out", 224),
    ("inceptionv3", "InceptionV3", "avg", "mixed7", 299),
    ("mobilenet", "MobileNet", "avg", "conv_pw_11_relu", 224),
)


def write_params(data: Path, path: Path, *, force: bool = False) -> str:
    """Look at a folder of class folders and write a params.yaml for it; returns what to tell the user.

    Args:
        data: the folder.
        path: of params.yaml.
        force: replace a file with changes that Git does not hold.

    Raises:
        GraftError: the folder cannot be used, or the file has uncommitted changes.
    """
    images = sources.check_folder(data, test=True).total()
    if path.exists() and _uncommitted(path) and not force:
        raise GraftError(f"{path} has changes that Git does not hold; commit them, or say --force (make init FORCE=1)")
    template = jinja2.Template(
        resources.files("graft").joinpath("starting.yaml.j2").read_text(encoding="utf-8"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    path.write_text(template.render(data=data.resolve(), rows=_ROWS), encoding="utf-8")
    params = load_params(path)
    return (
        f"init: {images:,} images in {data.resolve()}; {path} now describes {len(params.models())} models: "
        f"{', '.join(params.models())}. Delete the rows you do not want, then `make repro`."
    )


def _uncommitted(path: Path) -> bool:
    """Whether Git does not hold the file as it is; also where there is no Git to ask."""
    command = ["git", "status", "--porcelain", "--", path.name]
    result = subprocess.run(command, cwd=path.resolve().parent, capture_output=True, text=True, check=False)
    return bool(result.returncode or result.stdout.strip())
