from __future__ import annotations

from pathlib import Path

import numpy as np

from graft import networks, runtime
from graft.network_runs import save_keras_model


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
