from __future__ import annotations

from pathlib import Path

import numpy as np
from networks_on_trial import learnable_digits, tiny_params

from graft import runtime
from graft.baselines import train_baseline
from graft.shards import Shards, ShardWriter
from graft.training import Rows


def test_a_baseline_learns_and_repeats_bit_for_bit(tmp_path: Path) -> None:
    pixels, labels = learnable_digits()
    with ShardWriter(tmp_path, "images", (32, 32, 3), np.uint8) as writer:
        writer.append(pixels)
    images = Shards(tmp_path, "images")
    train, validation = np.arange(0, 60, 2), np.arange(1, 60, 2)
    baseline = tiny_params(baselines__cnn__train__epochs=6).baselines["cnn"]
    results = []
    for _ in range(2):
        runtime.configure(1)
        trained = train_baseline(
            baseline,
            Rows(images, [train], labels[train]),
            Rows(images, [validation], labels[validation]),
            classes=3,
            seed=1,
            publish=lambda *record: None,
        )
        results.append((trained.history, trained.model.predict(pixels, batch_size=20, verbose=0)))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])
    history = results[0][0]
    assert {record["phase"] for record in history} == {"scratch"}
    assert history[-1]["loss"] < history[0]["loss"] / 2
