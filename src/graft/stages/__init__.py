"""One thin entry point per stage of dvc.yaml: paths come as options, values from params.yaml, work from the library."""

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

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
    if section == "finetune":  # which does not follow from what the SVM stands on
        row["features"] = {key: value for key, value in row["features"].items() if not key.startswith("svm_")}
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
    """Run a stage's main on the command line, the only process of this stage here, under a parent that names a kill.

    What a user can cause is one message, not a stack trace; Ctrl-C and SIGTERM end it with 130 and 143.
    """
    from graft.redaction import secrets_hidden
    from graft.stage_lock import running_stage
    from graft.supervision import supervise

    stage = running_stage()

    def work() -> None:
        with secrets_hidden():
            typer.run(_guarded(main, stage))

    supervise(work, stage)


def _guarded(main: Callable[..., None], stage: str) -> Callable[..., None]:
    from graft.finished_work import forget
    from graft.run_keys import project_root
    from graft.stage_lock import stage_lock
    from graft.storage import NO_SPACE

    @functools.wraps(main)  # by whose parameters typer knows the options
    def guarded(*arguments: Any, **options: Any) -> None:
        signal.signal(signal.SIGTERM, _end)  # by an exception, so that what was begun is cleared away or kept whole
        try:
            with stage_lock(stage):  # after the fork of supervise, so that it names the process that works
                forget(project_root() / ".work")
                main(*arguments, **options)
        except GraftError as error:
            raise SystemExit(f"{stage}: {error}") from None
        except MemoryError as error:
            raise SystemExit(f"{stage}: memory ran out ({error}); `dvc repro` goes on from what was kept") from None
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            raise SystemExit(f"{stage}: {error}; make room, and `dvc repro` goes on from what was kept") from None
        except KeyboardInterrupt:
            _end(signal.SIGINT, None)

    def _end(number: int, frame: FrameType | None) -> NoReturn:
        name = signal.Signals(number).name
        print(f"{stage}: ended by {name}; `dvc repro` goes on from what was kept", file=sys.stderr, flush=True)
        raise SystemExit(128 + number) from None

    return guarded
