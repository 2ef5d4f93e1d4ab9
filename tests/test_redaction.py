import os
import subprocess
import sys

import pytest

from graft.redaction import redacted, shown

MARK = "m4rk-of-a-secret"
ENDING = """\
import os
from graft.redaction import secrets_hidden
secret = os.environ["A_TOKEN"]
with secrets_hidden():
    ENDING
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:secret@host/path", "https://host/path"),
        ("http://me:p@ss@host", "http://host"),
        ("no http://me:secret@a, no http://b/c@d", "no http://a, no http://b/c@d"),
        ("sqlite:///a@b.db", "sqlite:///a@b.db"),
        ("postgresql://host/db?user=me&password=secret&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("s3://bucket?aws_access_key=secret", "s3://bucket?aws_access_key=***"),
        ("password=... of the docs", "password=... of the docs"),
    ],
)
def test_an_address_is_shown_without_login_and_password(text, expected):
    assert shown(text) == expected


@pytest.mark.parametrize(
    "name",
    [
        *("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
        *("DATABRICKS_TOKEN", "PGPASSWORD", "GITHUB_TOKEN", "SOME_API_KEY", "db_passwd"),
    ],
)
def test_the_value_of_a_variable_that_speaks_of_a_secret_is_hidden(name):
    assert redacted(f"sent {MARK} twice: {MARK}", {name: MARK}) == "sent *** twice: ***"


def test_a_password_of_an_address_is_hidden_where_it_stands_alone_too():
    environment = {
        "MLFLOW_TRACKING_URI": "https://me:m4rk%2Fof%40mine@host",
        "DATABASE_URL": f"postgresql://u:{MARK}@h/d",
    }
    text = f"as m4rk/of@mine, as m4rk%2Fof%40mine, as {MARK} at https://me:m4rk%2Fof%40mine@host"
    assert redacted(text, environment) == "as ***, as ***, as *** at https://host"


def test_what_is_no_secret_stays(tmp_path):
    file = tmp_path / "credentials.json"
    file.touch()
    environment = {"GOOGLE_APPLICATION_CREDENTIALS": str(file), "HOME": "/srv/somebody", "SHORT_TOKEN": "abc"}
    text = f"reading {file} in /srv/somebody, abc"
    assert redacted(text, environment) == text


@pytest.mark.parametrize(
    ("ending", "status", "expected"),
    [
        ("raise RuntimeError('of ' + secret)", 1, "RuntimeError: of ***"),
        ("raise SystemExit('graft: of ' + secret)", 1, "graft: of ***"),
        ("raise SystemExit(3)", 3, ""),
        ("raise ValueError('outer') from KeyError('https://me:' + secret + '@host')", 1, "KeyError: 'https://host'"),
        ("pass", 0, ""),
    ],
)
def test_no_error_that_ends_the_program_shows_a_secret(ending, status, expected):
    program = ENDING.replace("ENDING", ending)
    environment = os.environ | {"A_TOKEN": MARK}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == status
    assert expected in done.stderr
    assert MARK not in done.stdout + done.stderr
