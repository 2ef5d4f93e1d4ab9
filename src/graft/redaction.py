"""Text without the secrets of the environment, for whatever is printed, logged or kept."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import unquote

SECRET = re.compile(
    r"passw(or)?d|passphrase|secret|token|credential|api_?key|access_key|private_key|pgpass|(^|_)(pass|pwd|auth)(_|$)",
    re.IGNORECASE,
)
LOGIN = re.compile(r"(\w://)[^/\s]*@")
QUERIED = re.compile(r"((?:\?|&|;)[\w-]*(?:password|passwd|pwd|secret|token|access_key)=)[^&;\s'\"]+", re.IGNORECASE)
LEAST = 6  # characters of a secret; shorter ones stand in too many words
HIDDEN = "***"


def shown(text: str) -> str:
    """An address, or a message with some, without logins and passwords."""
    return QUERIED.sub(rf"\1{HIDDEN}", LOGIN.sub(r"\1", text))


def redacted(text: str, environment: Mapping[str, str] | None = None) -> str:
    """The text without logins in addresses, and without the values of variables whose names speak of a secret.

    Args:
        text: such as a stack trace.
        environment: None: this process's.
    """
    hidden = _secrets(os.environ if environment is None else environment)
    for secret in sorted(hidden, key=len, reverse=True):  # the whole before a part of it
        text = text.replace(secret, HIDDEN)
    return shown(text)


def _secrets(environment: Mapping[str, str]) -> set[str]:
    """Values to hide; of an address its password alone, as it is written and as it is meant."""
    values = set()
    for name, value in environment.items():
        if SECRET.search(name) and not os.path.exists(value):  # some name a file that holds the secret
            values.add(value)
        for login in re.findall(r"\w://([^/\s]*)@", value):
            password = login.partition(":")[2]
            values |= {password, unquote(password)}
    return {value for value in values if len(value) >= LEAST}


@contextmanager
def secrets_hidden() -> Iterator[None]:
    """Whatever error leaves the block ends the program with its stack trace, or its message, redacted."""
    try:
        yield
    except SystemExit as ended:
        if isinstance(ended.code, str):
            raise SystemExit(redacted(ended.code)) from None
        raise
    except Exception as error:
        sys.stdout.flush()
        print(redacted("".join(traceback.format_exception(error))), end="", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
