"""A backbone's base with its weights, and a card that says where they come from."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from graft import runtime
from graft.params import Params, load_params, row
from graft.pretraining import train_on_source
from graft.pretraining_memory import settled_pretraining
from graft.stages import PARAMS_FILE, ParamsFile, run_key_of, start
from graft.storage import new_folder
from graft.unfinished import unfinished
from graft.weights import obtain_base, save_base


def run(params: Params, name: str, out: Path, work: Path | None = None) -> None:
    """Build or train the base and write it to models/source/<name>.

    What an interrupted run left in the work folder, as unfinished.unfinished gives it, is not done again.
    """
    from graft.resources import named_memory_errors

    row(params.backbones, name, "backbones")
    runtime.configure(params.seed)
    params = settled_pretraining(params, name)
    backbone = params.backbones[name]
    base = backbone.base
    runtime.configure(params.seed)  # once more: an estimate builds a base, which draws weights
    with named_memory_errors(params, "pretrain", name):
        model = obtain_base(base)
        card = {"backbone": name, **base.model_dump(mode="json")}
        if base.weights == "source":
            with nullcontext(work) if work else TemporaryDirectory() as folder:
                machine = runtime.machine()
                card["batch_size"] = backbone.pretrain.rows_per_step
                card |= train_on_source(model, backbone, params.pretrain, params.seed, Path(folder), machine)
    with new_folder(out) as folder:
        save_base(folder, model, card)
    learned = f", {card['source_val_accuracy']:.1%} on its source" if "source_val_accuracy" in card else ""
    print(f"pretrain {name}: {base.application} from {base.weights}, {model.count_params():,} parameters{learned}")


def main(name: str, out: Annotated[Path, typer.Option()], params: ParamsFile = PARAMS_FILE) -> None:
    """Run as the pretrain stage of one backbone."""
    from graft.preflight import check_before_training

    loaded = load_params(params)
    check_before_training(loaded)
    with unfinished(run_key_of("pretrain", name)) as work:
        run(loaded, name, out, work)


if __name__ == "__main__":
    start(main)
