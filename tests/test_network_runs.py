from __future__ import annotations

from pathlib import Path

import numpy as np

from graft import networks, runtime
from graft.network_runs import candidate_table, save_keras_model
from graft.training import Candidate


def test_equal_models_give_equal_files_that_keras_loads_safely(tmp_path: Path) -> None:
    import keras

    for name in ("one", "two"):
        runtime.configure(3)
        model = networks.build_head(4, 3, dropout=0.2)
        save_keras_model(tmp_path / f"{name}.keras", model)
    assert (tmp_path / "one.keras").read_bytes() == (tmp_path / "two.keras").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.keras", "two.keras"]
    loaded = keras.saving.load_model(tmp_path / "one.keras", compile=False, safe_mode=True)
    vectors = np.random.default_rng(0).random((2, 4)).astype("float32")
    np.testing.assert_array_equal(loaded.predict_on_batch(vectors), model.predict_on_batch(vectors))


def test_candidates_are_a_line_each_at_their_best_epoch() -> None:
    """Also where none of its epochs counts; heads and tails have columns of their own."""
    epochs = [{"epoch": number, "val_loss": loss, "val_accuracy": loss / 2} for number, loss in ((1, 0.8), (2, 0.6))]
    table = candidate_table(
        [
            Candidate("head-01", "frozen", {"dropout": 0.3}, epochs, True),
            Candidate("tail-01", "unfrozen", {"batch_size": 8}, [], False),
        ]
    )
    assert list(table) == ["name", "phase", "dropout", "batch_size", "epochs", "val_loss", "val_accuracy", "chosen"]
    assert table.to_csv(index=False).splitlines()[1:] == [
        "head-01,frozen,0.3,,2,0.6,0.3,True",
        "tail-01,unfrozen,,8,0,,,False",
    ]
