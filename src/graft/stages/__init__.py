"""One thin entry point per stage of dvc.yaml: paths come as options, values from params.yaml, work from the library."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from graft.errors import GraftError
from graft.params import Params

ParamsFile = Annotated[Path, typer.Option("--params", help="The parameters' file.")]
PARAMS_FILE = Path("params.yaml")
# Of the params in a run's record: where the images stood, which DVC knows by its hash, and what only stops a run.
UNTRACKED = {"data": {"path", "table", "max_invalid_fraction"}}


def recorded_params(params: Params, name: str, section: str) -> dict[str, Any]:
    """What shaped a backbone's run: the sections of every model, and of its row the base, the features and one more."""
    row = params.backbones[name].model_dump(mode="json", include={"base", "features", section})
    row["features"]["storage"] = params.features.storage
    return params.model_dump(mode="json", include={"seed", "data", "augment", "train"}, exclude=UNTRACKED) | row


def stage_name(verb: str, row: str) -> str:
    """The stage's name in dvc.yaml, also where it is called by hand."""
    return os.environ.get("DVC_STAGE", f"{verb}@{row}")


def feature_store() -> Path:
    """The folder of the store of activations: of the original repository, also for an experiment in a copy."""
    from graft.journal import project_root

    return project_root() / ".store" / "features"


def run_key_of(verb: str, row: str) -> str:
    """The identity of the run that this stage is about to be, from the dvc.yaml of the working directory."""
    from graft.journal import run_key

    return run_key(stage_name(verb, row), Path.cwd())


def start(main: Callable[..., None]) -> None:
    """Run a stage's main on the command line; what a user can cause is one message, not a stack trace."""
    try:
        typer.run(main)
    except GraftError as error:
        raise SystemExit(f"{os.environ.get('DVC_STAGE', 'graft')}: {error}") from None
