"""The templates of the pages: everything is escaped, and a name that is not given is an error."""

from __future__ import annotations

import base64

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_environment() -> Environment:
    """Where the pages' templates are found, such as `page.html.j2` and `data/page.html.j2`; `png` embeds a picture."""
    environment = Environment(
        loader=PackageLoader("graft", "reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["png"] = _address
    return environment


def _address(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
