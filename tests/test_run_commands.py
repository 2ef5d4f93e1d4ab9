import os
import subprocess
import sys


def graft(*arguments, cwd, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_"))}
    return subprocess.run(
        [sys.executable, "-m", "graft.cli", *arguments],
        cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_ui_of_a_server_is_the_servers_own(tmp_path):
    done = graft("ui", cwd=tmp_path, MLFLOW_TRACKING_URI="https://me:secret@mlflow.example:443")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "MLFLOW_TRACKING_URI names a server, which shows the runs itself: open https://mlflow.example:443\n"
    )


def test_outside_of_a_project_it_is_one_message(tmp_path):
    done = graft("sync", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "graft: params.yaml does not exist; run from the project's top folder or name the file\n"
