"""The templates of the pages: everything is escaped, and a name that is not given is an error."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_environment() -> Environment:
    """Where the pages' templates are found, such as `page.html.j2` and `data/page.html.j2`."""
    return Environment(
        loader=PackageLoader("graft", "reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
