"""A frozen base's activations for every image and view."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from graft import planning, runtime
from graft.artifacts import read_manifest, read_views
from graft.costs import segments
from graft.feature_sets import feature_index, read_view_pixels
from graft.features import Extraction, write_features
from graft.forecasts import Rate, Work, record_actual
from graft.frozen_bases import FrozenBase
from graft.params import Params, load_params, row
from graft.resources import named_memory_errors
from graft.stages import PARAMS_FILE, ParamsFile, feature_store, run_key_of, start
from graft.storage import new_folder, write_json
from graft.store import FeatureStore
from graft.unfinished import unfinished
from graft.vector_plans import kept_json, vectors_json, with_vectors

PACKAGES = ("tensorflow", "keras")  # that decide the last bits of activations


def run(
    params: Params,
    name: str,
    *,
    prepared: Path,
    augmented: Path,
    source: Path,
    out: Path,
    store: Path | None,
    work: Path | None = None,
    vectors: Path | None = None,
) -> tuple[planning.Plan, Extraction]:
    """Write data/features/<name>: what the plan keeps, from the store where it is there already.

    And data/vectors/<name> (None: nowhere): what the support vector machine stands on, unless that is the top alone.

    An interrupted run leaves its rows in the store, or where that may hold nothing, in the work folder.
    """
    backbone = row(params.backbones, name, "backbones")
    runtime.configure(params.seed)
    manifest = read_manifest(prepared)
    pixels = read_view_pixels(prepared, augmented, manifest)
    base = FrozenBase.load(source, backbone, pixels.row_shape[0], params.features.storage)
    index = feature_index(manifest, read_views(augmented, manifest))
    plan = planning.make_plan(
        params.features,
        backbone,
        segments(base.model, backbone.features.cuts, backbone.features.pooling),
        train=len(manifest.positions("train")),
        validation=len(manifest.positions("validation")),
        test=len(manifest.positions("test")),
        views=int(index["view"].max()) + 1,
    )
    plan = with_vectors(plan, base.model, backbone)
    print(f"features {name}: {planning.describe(plan)}", flush=True)
    with (
        named_memory_errors(params, "features", name),
        new_folder(out) as folder,
        new_folder(vectors) if vectors else nullcontext() as further,
        _opened(store, params.features.store_gb, work) as opened,
    ):
        beside = (further, vectors_json(plan, backbone)) if further else None
        done = write_features(folder, base, plan.to_json(), index, pixels, opened, beside)
    return plan, done


def write_timings(path: Path, done: Extraction) -> None:
    """Write what the features cost when they were computed, and what this run spent on them, in seconds."""
    write_json(
        path,
        {
            "feature_seconds": done.feature_seconds,
            **({"svm_feature_seconds": done.svm_seconds} if done.svm_seconds is not None else {}),
            "seconds": done.whole.seconds,
            "computed": done.computed,
            "reused": done.reused,
        },
    )


@contextmanager
def _opened(root: Path | None, max_gb: float, work: Path | None) -> Iterator[FeatureStore]:
    """The store, afterwards within its bound; where it may hold nothing, another place for the rows of this run.

    After an error or an interrupt it stays as large as it is, for the next run needs what this one computed.
    """
    store = FeatureStore(root, int(max_gb * 10**9)) if root else None
    if store and max_gb:
        yield store
    elif work:
        yield FeatureStore(work / "rows", 0)
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield FeatureStore(Path(folder), 0)
    if store:
        store.evict()


def main(
    name: str,
    prepared: Annotated[Path, typer.Option()],
    augmented: Annotated[Path, typer.Option()],
    source: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    timings: Annotated[Path, typer.Option()],
    vectors: Annotated[Path | None, typer.Option()] = None,
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Run as the features stage of one backbone."""
    from graft.resource_checks import check_resources

    loaded = load_params(params)
    check_resources(loaded)
    folders = {"prepared": prepared, "augmented": augmented, "source": source, "out": out}
    with nullcontext() if loaded.features.store_gb else unfinished(run_key_of("features", name), PACKAGES) as work:
        plan, done = run(loaded, name, **folders, store=feature_store(), work=work, vectors=vectors)
        write_timings(timings, done)
        kept = plan.output_bytes + (plan.vectors.output_bytes if plan.vectors else 0)
        spent = Work(done.computed, done.reused, done.whole.multiply_adds, kept, done.whole.seconds)
        rate = Rate(done.steady.multiply_adds, done.steady.seconds, done.steady.rows, "run")
        checked = record_actual(name, row(loaded.backbones, name, "backbones"), kept_json(plan), spent, rate)
        foretold = f" (foretold: {_told(checked.estimated)})" if checked.estimated else ""
        print(f"features {name}: {_told(spent)}{foretold}")


def _told(work: Work) -> str:
    spent = planning.amount(work.multiply_adds, "MAC")
    return f"{work.computed:,} views computed in {spent} and {work.seconds:.1f} s, {work.reused:,} from the store"


if __name__ == "__main__":
    start(main)
