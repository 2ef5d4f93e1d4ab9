"""Naming rows of params.yaml in its section `curve`, without another change to the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from graft.params import ParamsError, load_params
from graft.storage import new_file


def name_every_row(path: Path) -> dict[str, list[str]]:
    """Add to curve.backbones and curve.baselines the rows that they do not name; returns those added, by section.

    A name is put in behind the last one, so that every other character stays: writing the whole file anew, even by a
    library that keeps comments, would break its lines otherwise.

    Raises:
        ParamsError: the file is not a valid params.yaml, or its lists are written in a way that cannot be added to.
    """
    params = load_params(path)
    text = changed = path.read_text(encoding="utf-8")
    added = {
        section: [name for name in getattr(params, section) if name not in getattr(params.curve, section)]
        for section in ("baselines", "backbones")
    }
    wanted = yaml.safe_load(text)
    for section, names in added.items():
        wanted["curve"][section] += names
        changed = _appended(changed, section, names)
    if _parsed(changed) != wanted:
        raise ParamsError(f"{path}: rows cannot be added to curve.backbones and curve.baselines; name them there")
    if changed != text:
        with new_file(path) as partial:
            partial.write_text(changed, encoding="utf-8")
    return added


def _appended(text: str, section: str, names: Sequence[str]) -> str:
    """The text with names at the end of the list curve.<section>, in brackets or with a dash per line."""
    document = yaml.compose(text, yaml.SafeLoader) if names and _parsed(text) else None
    if document is None:
        return text
    found = _value(_value(document, "curve"), section)
    last = found.value[-1].end_mark.index if found.value else found.start_mark.index + 1
    if found.flow_style:
        return text[:last] + (", " if found.value else "") + ", ".join(names) + text[last:]
    end = text.index("\n", last) if "\n" in text[last:] else len(text)  # of the line, with the last name's comment
    lines = "".join(f"\n{' ' * found.start_mark.column}- {name}" for name in names)
    return text[:end] + lines + text[end:]


def _parsed(text: str) -> Any:
    """The content; None where an insertion broke it."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _value(mapping: Any, key: str) -> Any:
    return next(value for name, value in mapping.value if name.value == key)
