"""Cut the committed params.yaml down to two backbones and minutes: `python .ci/tiny-params.py > params.yaml`."""

import sys
from pathlib import Path

import yaml

values = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
values["data"]["train_per_class"] = 5
values["augment"]["views"] = 2
values["pretrain"] |= {"images_per_class": 10, "validation": 0.2}
values["backbones"] = {name: values["backbones"][name] for name in ("vgg16", "mobilenet")}
for row in values["backbones"].values():
    row["pretrain"]["epochs"] = 1
    row["finetune"] |= {"epochs": 3, "unfrozen_epochs": 3}
    row["svm"] |= {"kernels": ["rbf"], "c": [1, 10], "folds": 2}
row = values["backbones"]["mobilenet"]  # with a grid of heads and one of second phases
row["features"]["frozen_until"] = ["conv_pw_12_relu", "conv_pw_11_relu"]
row["finetune"]["heads"] = {"learning_rate": [3.0e-3, 1.0e-2], "dropout": [0.3], "hidden_units": [0]}
row["finetune"]["tails"] = {"unfrozen_learning_rate": [1.0e-6], "batch_size": [16, 32], "halving": 2}
values["baselines"] = {name: values["baselines"][name] for name in ("cnn", "numpy_cnn")}
for row in values["baselines"].values():
    row["train"]["epochs"] = 3
values["train"]["repeats"] = 2
values["transferability"]["folds"] = 2
values["inspect"] |= {"images": 2, "occlusion_stride": 8, "repeats": 5}
values["curve"] |= {"backbones": ["mobilenet"], "baselines": ["numpy_cnn"], "per_class": [2, "all"], "seeds": 1}
values["compare"]["resamples"] = 200
yaml.safe_dump(values, sys.stdout, sort_keys=False)
