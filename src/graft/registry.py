"""The registered model: a version for each run that led the leaderboard, and the alias `champion` behind a gate.

Where the leader of the leaderboard is not the champion, it has the alias `challenger`. Tags of a version say why:
graft.gate is the reason, graft.gate.against the version that it was judged against. A version that a person made the
champion stays until one that was registered afterwards is judged against it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from graft.mlflow_server import (  # first: it settles what mlflow reads while it is imported
    MlflowClient,
    connect,
    reachable,
    shown,
    tracking_uri,
)

# isort: split
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from graft.artifacts import Predictions, read_manifest, read_predictions
from graft.champion_gate import Verdict, judge
from graft.errors import GraftError
from graft.faults import reached
from graft.journal import project_root
from graft.logged_models import logged_models
from graft.operation_sections import Tracking
from graft.params import Params
from graft.storage import ArtifactError
from graft.trained import TrainedModel, alone
from graft.version_notes import describe_version, shown_facts

Alias = Literal["champion", "challenger"]
GATE = "graft.gate"
AGAINST, RESULT, SETTINGS = f"{GATE}.against", f"{GATE}.result", f"{GATE}.settings"
BY_HAND = f"{GATE}.by_hand"  # the newest version when a person made this one the champion
FIGURES = ("n", "difference", "low", "high")
PREDICTIONS = "predictions.parquet"


class RegistryError(GraftError):
    """The registry has no such version."""


@dataclass(frozen=True)
class Registered:
    """The leaderboard's champion in the registry.

    Attributes:
        version: of the registered model.
        alias: that it has.
        reason: why that one.
    """

    version: str
    alias: Alias
    reason: str


def register_champion(
    client: MlflowClient, run: Run, model: TrainedModel, params: Params, prepared: Path
) -> Registered:
    """See to the version of the model that leads the leaderboard and to its alias; only what is missing is written.

    Two versions that were judged once are not judged again, also where the alias goes to and fro between them.

    Args:
        client: of the tracking server.
        run: the model's, complete.
        model: leads the leaderboard.
        params: name the registered model, and say how sure the gate must be.
        prepared: folder of the data set that the model is of; images of a group belong together.
    """
    name = params.tracking.registered_model
    version = _version(client, name, run)
    aliases = _aliases(client, name)
    gate = _gate(client, version, aliases.get("champion"), model, params, prepared)
    _set_tags(client, version, gate | shown_facts(model))
    text = describe_version(model, params.compare.confidence)
    if version.description != text:
        client.update_model_version(name, str(version.version), text)
        reached("register description")
    alias: Alias = "champion" if gate[RESULT] == "champion" else "challenger"
    _set_alias(client, name, aliases, alias, str(version.version))
    return Registered(str(version.version), alias, gate[GATE])


def _version(client: MlflowClient, name: str, run: Run) -> ModelVersion:
    """The run's version, made where it is missing."""
    run_id = run.info.run_id
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    if versions:
        return min(versions, key=lambda version: int(version.version))
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    reached("register model")
    logged = logged_models(client.get_run(run_id))[0]  # the run may have been read before its model was logged
    client.create_model_version(name, f"models:/{logged}", run_id, model_id=logged)
    reached("register version")
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    first, *others = sorted(versions, key=lambda version: int(version.version))
    for version in others:  # of a lost answer, after which it was asked for again, or of another machine
        try:
            client.delete_model_version(name, str(version.version))
        except MlflowException as error:  # that machine may have seen it, too
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    return first


def _aliases(client: MlflowClient, name: str) -> dict[str, str]:
    """Versions by alias."""
    return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}


def _gate(
    client: MlflowClient,
    version: ModelVersion,
    champion: str | None,
    model: TrainedModel,
    params: Params,
    prepared: Path,
) -> dict[str, str]:
    """The version's tags of the gate, which is asked only where the answer is not known."""
    own = {name: value for name, value in version.tags.items() if name.startswith(GATE)}
    if champion is None:
        return _opened("there was no champion")
    if champion == str(version.version):
        return own if own.get(RESULT) == "champion" else _opened("it was the champion before there was a gate")
    present = client.get_model_version(version.name, champion)
    if int(version.version) <= int(present.tags.get(BY_HAND, 0)):
        return _kept_out(version, present)
    if (own.get(AGAINST), own.get(SETTINGS)) == (champion, _settings(params)):
        return own
    there = _predictions(client, present)
    if isinstance(there, Predictions):
        rows = read_manifest(prepared).rows
        groups = dict(zip(rows["image_id"], rows["group"], strict=True))
        verdict = judge(read_predictions(model.predictions), there, groups, params.compare, params.seed)
    else:  # refused, no model could ever follow it
        verdict = Verdict(True, f"version {champion} cannot be compared: {there}")
    return _tags(verdict, champion, _settings(params))


def _opened(reason: str) -> dict[str, str]:
    return {GATE: reason, RESULT: "champion"}


def _kept_out(version: ModelVersion, present: ModelVersion) -> dict[str, str]:
    reason = (
        f"version {present.version} was made the champion by hand and stays until a version after "
        f"{present.tags[BY_HAND]} is judged against it; `graft promote {version.version}` makes this one the champion"
    )
    return {GATE: reason, RESULT: "challenger", AGAINST: str(present.version)}


def _settings(params: Params) -> str:
    compare = params.compare
    return f"{100 * compare.confidence:g} % confidence, {compare.resamples} resamples, seed {params.seed}"


def _tags(verdict: Verdict, against: str, settings: str) -> dict[str, str]:
    figures = {name: value for name in FIGURES if (value := getattr(verdict, name)) is not None}
    return {
        GATE: verdict.reason,
        RESULT: "champion" if verdict.promote else "challenger",
        AGAINST: against,
        SETTINGS: settings,
        **{f"{GATE}.{name}": f"{value:.6g}" for name, value in figures.items()},
    }


def _predictions(client: MlflowClient, version: ModelVersion) -> Predictions | str:
    """What its run predicted, or why that is not known."""
    if not version.run_id:
        return "it belongs to no run"
    try:
        listed = [item.path for item in client.list_artifacts(version.run_id)]
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return "its run is gone"
    if PREDICTIONS not in listed:
        return "its run has no predictions, as those from before they were kept"
    with tempfile.TemporaryDirectory() as folder:
        try:
            downloaded = Path(client.download_artifacts(version.run_id, PREDICTIONS, folder))
            return read_predictions(downloaded, archived=True)
        except ArtifactError:
            return "the predictions of its run are damaged"


def _set_tags(client: MlflowClient, version: ModelVersion, wanted: Mapping[str, str]) -> None:
    """Write the tags that differ and take those of the gate away that no longer hold.

    What an answer is known by comes last, so that after an interruption it is asked for again.
    """
    name, number = version.name, str(version.version)
    for tag in version.tags:
        if tag.startswith(GATE) and tag not in wanted:
            client.delete_model_version_tag(name, number, tag)
            reached(f"register loss of tag {tag}")
    for tag, value in sorted(wanted.items(), key=lambda item: item[0] in (AGAINST, SETTINGS)):
        if version.tags.get(tag) != value:
            client.set_model_version_tag(name, number, tag, value)
            reached(f"register tag {tag}")


def _set_alias(client: MlflowClient, name: str, aliases: Mapping[str, str], alias: Alias, version: str) -> None:
    """Let the version have this alias and not the other; once it is the champion, nothing challenges it."""
    if aliases.get(alias) != version:
        try:
            client.set_registered_model_alias(name, alias, version)
        except MlflowException:  # another machine set it for the first time at the same moment
            if alias not in _aliases(client, name):
                raise
            client.set_registered_model_alias(name, alias, version)
        reached(f"register alias {alias}")
    if alias == "champion" and "challenger" in aliases:
        client.delete_registered_model_alias(name, "challenger")


def promote(version: int, settings: Tracking) -> str:
    """Make a version the champion, whatever the gate said; returns what was done.

    Raises:
        RegistryError: there is no such version; the message lists those there are.
        UnreachableError: the tracking server does not answer.
    """
    root, name = project_root(), settings.registered_model
    uri = tracking_uri(root)
    with alone(root), reachable(uri):
        client, _ = connect(uri, settings.experiment, root)
        versions = {int(each.version): each for each in client.search_model_versions(f"name = '{name}'")}
        if version not in versions:
            there = ", ".join(map(str, sorted(versions))) or "none; `dvc repro` registers the first"
            raise RegistryError(f"{name} at {shown(uri)} has no version {version}; it has: {there}")
        aliases = _aliases(client, name)
        before = aliases.get("champion", str(version))
        by_hand = _opened("made the champion by hand") | {BY_HAND: str(max(versions))}
        place = f", in place of version {before}" if before != str(version) else ""
        if place:
            by_hand |= {GATE: by_hand[GATE] + place, AGAINST: before}
        _set_tags(client, versions[version], by_hand)
        _set_alias(client, name, aliases, "champion", str(version))
    return (
        f"version {version} of {name} is the champion{place}; it stays until a version after "
        f"{max(versions)} is judged against it. A server that runs keeps the model it loaded."
    )
