"""The command about the disk that a project takes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graft.params import load_params
from graft.planning import amount
from graft.resources import folder_bytes
from graft.stages import PARAMS_FILE, ParamsFile, feature_store

if TYPE_CHECKING:
    from graft.garbage import Unfinished


def gc(
    yes: Annotated[bool, typer.Option("--yes", help="Free without asking.")] = False,
    keep_gb: Annotated[
        float | None, typer.Option(min=0, help="Of the features store; without it features.store_gb of the params.")
    ] = None,
    older_than: Annotated[
        float, typer.Option(min=0, help="Days since unfinished work last changed, from which on it goes; 0: all.")
    ] = 7,
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Show what the project keeps beside its outputs, and free what nothing needs, after asking."""
    from graft import garbage
    from graft.journal import project_root

    root = project_root()
    bound = load_params(params).features.store_gb if keep_gb is None else keep_gb
    work = garbage.unfinished_work(root / ".work")
    dead = [item for item in work if not item.live and item.days >= older_than]
    store = feature_store()
    above = max(0, folder_bytes(store) - int(bound * 10**9))
    typer.echo(f"Features store, {store}: {_told(folder_bytes(store))}, {_told(above)} above {bound:g} GB")
    _show_work(work, older_than)
    typer.echo(f"Archive of runs, {root / '.store' / 'runs'}: {_size(root / '.store' / 'runs')}, never deleted here")
    for name, folder in (("Exports", root / "exports"), ("Workspaces of verify", root / ".work" / "verify")):
        typer.echo(f"{name}, {folder}: {_size(folder)}, yours to delete")
    if above and _agreed(f"Delete {_told(above)} of the features store? They are computed again if needed", yes):
        typer.echo(f"gc: freed {_told(garbage.shrink_store(store, bound))} of the features store")
    if dead and _agreed(f"Delete {len(dead)} unfinished run(s)? They would begin anew", yes):
        typer.echo(f"gc: freed {_told(sum(map(garbage.remove_unfinished, dead)))} of unfinished work")
    for folder in garbage.leftovers(root / ".work"):
        shutil.rmtree(folder, ignore_errors=True)
    _collect_cache(root, yes, busy=any(item.live for item in work))


def _show_work(work: Sequence[Unfinished], older_than: float) -> None:
    typer.echo(f"Unfinished work: {len(work)} run(s), {_told(sum(item.bytes for item in work))}")
    for item in work:
        state = "a process holds it" if item.live else "to go" if item.days >= older_than else "kept"
        facts = f"{item.stage}, {_told(item.bytes)}, {item.days:.1f} days old"
        typer.echo(f"  {item.folder.name[:12]}  {facts}: {state}")


def _collect_cache(root: Path, yes: bool, *, busy: bool) -> None:
    """Show DVC's cache, and what of it `dvc gc --workspace` would delete."""
    from graft import dvc_storage

    storage = dvc_storage.dvc_storage(root)
    if storage is None:
        return
    shown = f"DVC's cache, {storage.folder}: {_size(storage.folder)}"
    if not storage.folder.resolve().is_relative_to((root / ".dvc").resolve()):
        typer.echo(f"{shown}; left alone: it lies outside the project, and others may share it (dvc gc --projects)")
        return
    if busy or dvc_storage.is_running(root):
        typer.echo(f"{shown}; left alone while a stage runs")
        return
    free = sum(map(folder_bytes, dvc_storage.unused(root)))
    typer.echo(f"{shown}, {_told(free)} of it of nothing in the working folder, a branch or a tag")
    question = (
        f"Delete these {_told(free)} by `dvc gc`? Earlier commits, experiments and archived runs that have not been "
        "pushed or synced lose their files"
    )
    if free and _agreed(question, yes) and not dvc_storage.is_running(root):  # who was asked may have taken hours
        dvc_storage.collect(root)
        typer.echo(f"gc: freed {_told(free)} of DVC's cache")


def _size(path: Path) -> str:
    return _told(folder_bytes(path))


def _told(size: int) -> str:
    return amount(size, "B")


def _agreed(question: str, yes: bool) -> bool:
    return yes or typer.confirm(question)
