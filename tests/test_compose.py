"""compose.yaml, which needs Docker to run, agrees with the server that `make server` runs."""

import ast
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from graft.team_server import FOLDER, command

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
SERVICES = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
SETTINGS = SERVICES["mlflow"]["environment"]


def copied_modules():
    lines = [shlex.split(line)[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY src/")]
    return {ROOT / path for line in lines for path in line}


def imported(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    return {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module} | {
        alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
    }


def test_the_image_holds_the_modules_of_the_server_and_installs_what_they_import():
    modules = copied_modules()
    names = {f"graft.{path.stem}" for path in modules}
    needed = {name for path in modules for name in imported(path) if name.startswith("graft")}
    assert "graft.team_server" in names
    assert needed <= names
    others = {name.split(".")[0] for path in modules for name in imported(path)} - {"graft"}
    # SQLAlchemy comes with MLflow; psutil belongs to the private PostgreSQL, which the container does without.
    assert others - set(sys.stdlib_module_names) == {"sqlalchemy", "psutil"}


def test_the_image_installs_the_pinned_versions():
    assert '--constraint /tmp/versions.txt "mlflow[auth]" psycopg2-binary' in DOCKERFILE
    script = re.search(r"sed -n '(.*)' /tmp/requirements.txt > /tmp/versions.txt", DOCKERFILE).group(1)
    versions = subprocess.check_output(["sed", "-n", script, ROOT / "requirements.txt"], text=True).splitlines()
    for name in ("mlflow", "psycopg2-binary", "sqlalchemy"):
        assert f"{name}=={metadata.version(name)}" in versions
    assert not [line for line in versions if "--hash" in line or line.endswith("\\")]


def test_the_container_runs_the_same_server():
    (run,) = [line for line in DOCKERFILE.splitlines() if line.startswith("CMD ")]
    words = yaml.safe_load(run.removeprefix("CMD "))
    assert words == ["python", "-m", "graft.team_server", "--host", "0.0.0.0", "--port", "5000"]
    assert command("0.0.0.0", 5000)[1:4] == ["-m", "mlflow", "server"]
    assert command("0.0.0.0", 5000)[-4:] == words[-4:]


def test_nothing_is_reachable_from_outside_unless_it_is_said_so():
    assert SERVICES["mlflow"]["ports"] == ["${GRAFT_SERVER_ADDRESS:-127.0.0.1:5000}:5000"]
    assert "ports" not in SERVICES["postgres"]
    assert SETTINGS["MLFLOW_SERVER_ALLOWED_HOSTS"] == "${MLFLOW_SERVER_ALLOWED_HOSTS:-localhost:*,127.0.0.1:*}"


def test_secrets_come_from_the_environment_alone():
    for settings in (SETTINGS, SERVICES["postgres"]["environment"]):
        for name, value in settings.items():
            assert not re.search("PASSWORD|KEY", name) or re.fullmatch(r"\$\{\w+:[-?][\w. ]*\}", value), name
    assert SETTINGS["PGPASSWORD"] == SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD"]
    assert ":" not in SETTINGS["MLFLOW_BACKEND_STORE_URI"].removeprefix("postgresql:")


def test_the_example_lists_what_must_be_set_and_sets_no_secret():
    lines = (ROOT / ".env.example").read_text().splitlines()
    example = dict(line.removeprefix("# ").split("=", 1) for line in lines if re.match(r"(# )?[A-Z_]+=", line))
    assert {name for name, value in example.items() if not value} == {"POSTGRES_PASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD"}
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "compose.yaml").read_text()))
    assert set(example) <= used
    assert "/.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_data_outlive_the_containers():
    assert SERVICES["mlflow"]["volumes"] == [f"server:/srv/mlflow/{FOLDER}"]
    assert "WORKDIR /srv/mlflow" in DOCKERFILE
    assert SERVICES["postgres"]["volumes"] == ["postgres:/var/lib/postgresql/data"]
    assert SERVICES["mlflow"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\$\{(\w+)", (ROOT / "compose.yaml").read_text()))))
def test_every_setting_is_documented(name):
    assert f"`{name}`" in (ROOT / "docs" / "server.md").read_text()
