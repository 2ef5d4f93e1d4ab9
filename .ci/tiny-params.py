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
values["baselines"]["cnn"]["train"]["epochs"] = 3
values["compare"]["resamples"] = 200
yaml.safe_dump(values, sys.stdout, sort_keys=False)
