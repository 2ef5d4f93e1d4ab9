"""A backbone's base with its weights, and a card that says where they come from."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from graft import runtime
from graft.params import Params, load_params, row
from graft.pretraining import train_on_source
from graft.stages import PARAMS_FILE, ParamsFile, start
from graft.storage import new_folder
from graft.weights import obtain_base, save_base


def run(params: Params, name: str, out: Path) -> None:
    """Build or train the base and write it to models/source/<name>."""
    backbone = row(params.backbones, name, "backbones")
    base = backbone.base
    runtime.configure(params.seed)
    model = obtain_base(base)
    card = {"backbone": name, **base.model_dump(mode="json")}
    if base.weights == "source":
        with tempfile.TemporaryDirectory() as work:
            card |= train_on_source(model, backbone, params.pretrain, params.seed, Path(work))
    with new_folder(out) as folder:
        save_base(folder, model, card)
    learned = f", {card['source_val_accuracy']:.1%} on its source" if "source_val_accuracy" in card else ""
    print(f"pretrain {name}: {base.application} from {base.weights}, {model.count_params():,} parameters{learned}")


def main(name: str, out: Annotated[Path, typer.Option()], params: ParamsFile = PARAMS_FILE) -> None:
    """Run as the pretrain stage of one backbone."""
    from graft.preflight import check_before_training

    loaded = load_params(params)
    check_before_training(loaded)
    run(loaded, name, out)


if __name__ == "__main__":
    start(main)
