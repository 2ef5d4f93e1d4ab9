"""The `graft` command: what stands behind the make targets."""

from __future__ import annotations

import typer

from graft.commands import (
    ablation,
    exports,
    galleries,
    models,
    pipeline,
    registry,
    resources,
    runs,
    servers,
    verification,
)
from graft.errors import GraftError
from graft.redaction import secrets_hidden

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)


@app.callback()
def graft() -> None:
    """A folder of labelled images in, a transfer-learned classifier one can trust out."""


for _command in (
    *(pipeline.check, pipeline.plan, pipeline.init, pipeline.cv, pipeline.curve, ablation.ablation, pipeline.report),
    *(models.predict, models.serve, galleries.gallery, exports.export, registry.promote),
    *(runs.track, runs.sync, runs.ui, servers.server, verification.verify, resources.gc),
):
    app.command()(_command)
app.command("check-lock")(pipeline.check_lock)


def main() -> None:
    """Run the command; errors of the library are one message, not a stack trace, and no error shows a secret."""
    with secrets_hidden():
        try:
            app()
        except GraftError as error:
            raise SystemExit(f"graft: {error}") from None
        except OSError as error:  # of a disk that is full, of a folder that is not there or is read-only
            raise SystemExit(f"graft: {error.filename2 or error.filename or 'writing'}: {error.strerror}") from None


if __name__ == "__main__":
    main()
