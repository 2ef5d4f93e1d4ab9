"""dvc.yaml, params.yaml, the package and the tests agree with each other."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from graft.params import load_params

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
STAGES = (
    *("prepare", "augment", "pretrain", "features", "transferability", "baseline", "finetune", "svm"),
    *("inspect_baseline", "inspect", "curve_baseline", "curve", "compare", "track"),
)
OF_BASELINES = ("baseline", "inspect_baseline", "curve_baseline")
WITHOUT_TENSORFLOW = ("prepare", "augment", "transferability", "svm", "compare", "track")

# They observe and refuse, and never shape an output, so that editing them retrains nothing: params.py and the sections
# hold the types of values that DVC tracks itself, journal.py, live.py and tracking.py record with the modules under
# them, preflight.py and resources.py stop, stage_lock.py waits, supervision.py explains, faults.py ends processes where
# tests ask for it, forecasts.py remembers how long things took.
OBSERVERS = {
    *{"graft.params", "graft.sections", "graft.comparison_sections", "graft.operation_sections"},
    *{"graft.preflight", "graft.forecasts", "graft.errors"},
    *{"graft.faults", "graft.supervision", "graft.stage_lock", "graft.machine_memory", "graft.redaction"},
    *{"graft.resources", "graft.resource_checks", "graft.run_keys", "graft.journal_resumption"},
    *{
        "graft.finished_work",
        "graft.journal",
        "graft.journal_records",
        "graft.candidate_records",
        "graft.origin",
        "graft.system_metrics",
    },
    *{"graft.publisher_process", "graft.live", "graft.live_publisher"},
    *{"graft.tracking", "graft.mlflow_server", "graft.identified_runs", "graft.run_parts", "graft.nested_runs"},
    *{"graft.run_archive", "graft.dvc_cache", "graft.run_descriptions"},
    *{"graft.logged_models", "graft.pyfunc_model", "graft.served_images"},
    *{"graft.registry", "graft.champion_gate", "graft.version_notes"},
}

MLFLOW_USERS = {
    *{"tracking", "mlflow_server", "identified_runs", "run_parts", "nested_runs", "live_publisher", "syncing"},
    *{"logged_models", "pyfunc_model", "registry", "scoring", "scoring_server"},
}


# Parts of another module, split off for length or against import cycles, which its tests reach.
TESTED_WITH = {
    "frozen_passes": "features",
    "batches": "training",
    "comparison_sections": "sections",
    "drawing": "splits",
    "dvc_storage": "garbage",
    "embedded": "sources",
    "finetuning_memory": "training_memory",
    "frozen_bases": "features",
    "image_formats": "images",
    "journal_records": "journal",
    "journal_resumption": "journal",
    "operation_sections": "sections",
    "pretraining_memory": "batch_sizes",
    "publisher_process": "live",
    "resource_checks": "footprints",
    "run_identity": "runs",
    "run_keys": "journal",
    "run_parameters": "trained",
    "runs_page": "run_commands",
    "records": "sources",
    "svm_search": "svm",
    "unpacking": "archives",
}
TEMPLATE = re.compile(r'"([\w/]+\.(?:(?:html|md)\.j2|css|js))"')  # by which a page, or another template, takes one in


def pipeline() -> dict[str, Any]:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return {name: stage.get("do", stage) for name, stage in stages.items()}


def module_path(module: str) -> Path | None:
    path = SOURCE / Path(*module.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.exists()), None)


def imports(path: Path, *, at_top_only: bool = False) -> set[str]:
    """Modules that a file imports when it runs; what stands under TYPE_CHECKING does not run."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if at_top_only and isinstance(node, ast.FunctionDef):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            found.update({node.module} | {f"{node.module}.{alias.name}" for alias in node.names})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def closure(module: str, *, skip: set[str] = frozenset(), at_top_only: bool = False) -> set[str]:
    """The graft modules behind a module, itself included."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = module_path(name)
        if name in seen or name in skip or name == "graft" or path is None or not name.startswith("graft"):
            continue
        seen.add(name)
        parents = {name.rsplit(".", 1)[0]} if "." in name else set()
        waiting.extend(imports(path, at_top_only=at_top_only) | parents)
    return seen


def files(modules: set[str]) -> set[str]:
    """Their paths, with the templates that they name, without packages that hold nothing but a docstring."""
    paths = {path for module in modules if (path := module_path(module)) is not None}
    paths = {path for path in paths if len(ast.parse(path.read_text()).body) > 1}
    waiting = [path for path in paths if path.is_relative_to(SOURCE / "graft/reporting")]
    while waiting:
        found = {SOURCE / "graft/reporting" / name for name in TEMPLATE.findall(waiting.pop().read_text())}
        waiting.extend(found - paths)
        paths |= found
    return {path.relative_to(ROOT).as_posix() for path in paths}


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_exactly_the_modules_it_imports(stage: str) -> None:
    declared = {dep for dep in pipeline()[stage]["deps"] if dep.startswith("src/")}
    assert declared == files(closure(f"graft.stages.{stage}", skip=OBSERVERS))


def test_pipeline_has_these_stages_and_each_calls_its_module() -> None:
    stages = pipeline()
    assert tuple(stages) == STAGES
    for name, stage in stages.items():
        assert shlex.split(stage["cmd"])[:4] == ["PYTHONPATH=src", "python", "-m", f"graft.stages.{name}"]


def test_every_params_entry_exists() -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    foreach = {name: "baselines" if name in OF_BASELINES else "backbones" for name in STAGES}
    for name, stage in pipeline().items():
        for entry in stage["params"]:
            for key in values[foreach[name]] if "${" in entry else [""]:
                node = values
                for part in re.sub(r"\$\{(key|item)\}", key, entry).split("."):
                    assert part in node, f"{name} tracks {entry}, which params.yaml lacks"
                    node = node[part]


def test_learning_rate_is_tracked_by_its_finetune_alone() -> None:
    users = [
        name
        for name, stage in pipeline().items()
        if any(re.fullmatch(r"backbones\.\$\{\w+\}(\.finetune)?", entry) for entry in stage["params"])
    ]
    assert users == ["finetune", "curve"]  # which is off until it is asked for


@pytest.mark.parametrize("stage", WITHOUT_TENSORFLOW)
def test_stage_starts_without_tensorflow(stage: str) -> None:
    modules = closure(f"graft.stages.{stage}", at_top_only=True)
    paths = [path for module in modules if (path := module_path(module)) is not None]
    imported = {name.split(".")[0] for path in paths for name in imports(path, at_top_only=True)}
    assert not imported & {"keras", "tensorflow"}


def test_only_what_publishes_and_serves_imports_mlflow() -> None:
    users = {
        path.stem
        for path in (SOURCE / "graft").rglob("*.py")
        if any(name.split(".")[0] == "mlflow" for name in imports(path))
    }
    assert users <= MLFLOW_USERS


def test_the_library_imports_neither_stages_nor_pages() -> None:
    for path in (SOURCE / "graft").glob("*.py"):
        if path.stem != "cli":
            assert not {name for name in imports(path) if name.startswith(("graft.stages", "graft.reporting"))}, path


def test_every_module_has_a_test_file() -> None:
    tested = {path.stem.removeprefix("test_") for path in (ROOT / "tests").rglob("test_*.py")}
    modules = {path.stem for path in (SOURCE / "graft").glob("*.py")} - {"__init__", "errors"}
    assert set(TESTED_WITH.values()) <= tested
    assert modules <= tested | set(TESTED_WITH), f"untested: {sorted(modules - tested - set(TESTED_WITH))}"


def test_committed_params_are_valid_and_list_sixteen_models() -> None:
    models = load_params(ROOT / "params.yaml").models()
    assert sorted(models.values()) == ["baseline"] * 8 + ["finetune"] * 4 + ["svm"] * 4


def test_no_tracked_file_names_a_machine_path_or_waits_to_be_filled_in() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"/(home|root|Users)/\w", text), name
        assert not re.search(r"@@[A-Z]+@@", text), name


def test_requirements_are_hashed_and_name_no_package_index() -> None:
    pinned = (ROOT / "requirements.txt").read_text()
    assert "--index-url" not in pinned
    assert "--find-links" not in pinned
    assert "://" not in pinned
    assert all("--hash=sha256:" in block for block in re.split(r"\n(?=[a-z0-9])", pinned) if "==" in block)


def test_makefile_documents_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", text, re.MULTILINE))
    documented = set(re.findall(r"^([a-z]+):.*## \S", text, re.MULTILINE))
    assert targets - documented <= {"lock"}
    assert {"help", "setup", "repro", "test", "check", "ui", "init", "clean"} <= documented


def test_the_page_of_the_lectures_names_what_is_there() -> None:
    page = (ROOT / "docs" / "lectures.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests/)?[a-z0-9_/]+\.py)`", page)
    assert len(named) > 40
    assert [name for name in named if not (ROOT / name).exists() and not (ROOT / "src/graft" / name).exists()] == []
    rows = set(yaml.safe_load((ROOT / "params.yaml").read_text())["baselines"])
    told = {name for line in page.splitlines() if "| row" in line for name in re.findall(r"`([a-z_]+)`", line)}
    assert rows - told == set()
    links = re.findall(r"\]\(\.\./([^)]+)\)", page)
    assert [link for link in links if not (ROOT / link).exists()] == []
