"""Commands that run a server for a team."""

from __future__ import annotations

from typing import Annotated

import typer


def server(
    host: Annotated[
        str, typer.Option(help="Interface to listen on; beyond this machine a name or 0.0.0.0.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
) -> None:
    """Run MLflow with PostgreSQL, artifacts that it serves, and basic authentication."""
    from graft import team_server

    team_server.run(host, port)
