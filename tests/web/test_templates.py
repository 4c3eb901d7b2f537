"""Templates and their contexts: each page has a typed context that holds what its template uses, no less and no more."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jinja2.nodes
import pytest
from jinja2 import meta

import hub.web.site  # noqa: F401 - defines every page
from hub.vocabulary import JOB_KINDS
from hub.web import render
from hub.web.render import Page

FOLDER = Path(render.__file__).parent / "templates"
TEMPLATES = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.html"))
MOST = 160  # characters in a line

# What a template includes by a name that its context holds.
BY_NAME = {
    "new/form.html": [f"new/{kind}.html" for kind in JOB_KINDS],
    "jobs/job.html": [name for name in TEMPLATES if name.startswith("jobs/sections/")],
}


def pages(base: type[Page] = Page) -> Iterator[type[Page]]:
    for page in base.__subclasses__():
        yield page
        yield from pages(page)


PAGES = sorted(pages(), key=lambda page: page.template)


def parsed(name: str) -> jinja2.nodes.Template:
    return render.TEMPLATES.parse((FOLDER / name).read_text())


def family(name: str) -> list[str]:
    """A template with those whose code runs with its variables: it extends or includes them, or imports them with context."""
    template = parsed(name)
    nodes: list[jinja2.nodes.Extends | jinja2.nodes.Include | jinja2.nodes.FromImport] = [
        *template.find_all(jinja2.nodes.Extends),
        *template.find_all(jinja2.nodes.Include),
        *(node for node in template.find_all(jinja2.nodes.FromImport) if node.with_context),
    ]
    found = [name]
    for node in nodes:
        if isinstance(node.template, jinja2.nodes.Const):
            found += family(node.template.value)
        else:
            found += [inner for included in BY_NAME[name] for inner in family(included)]
    return found


def defined_in(name: str) -> set[str]:
    """Macros, imported macros, and variables that a template sets or counts through."""
    template = parsed(name)
    macros = {node.name for node in template.find_all(jinja2.nodes.Macro)}
    imports = {
        alias if isinstance(alias, str) else alias[1]
        for node in template.find_all(jinja2.nodes.FromImport)
        for alias in node.names
    }
    assigned = [node.target for node in template.find_all(jinja2.nodes.Assign)]
    targets = assigned + [node.target for node in template.find_all(jinja2.nodes.For)]
    return macros | imports | {inner.name for target in targets for inner in _names(target)}


def _names(target: jinja2.nodes.Node) -> list[jinja2.nodes.Name]:
    return [target] if isinstance(target, jinja2.nodes.Name) else list(target.find_all(jinja2.nodes.Name))


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_has_short_lines(name: str) -> None:
    lines = (FOLDER / name).read_text().splitlines()
    assert [(number, len(line)) for number, line in enumerate(lines, 1) if len(line) > MOST] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.__name__)
def test_a_context_has_the_variables_of_its_template(page: type[Page]) -> None:
    assert page.__doc__
    assert not page.__doc__.startswith(f"{page.__name__}("), "dataclasses write such a docstring where there is none"
    assert page.__dataclass_params__.frozen  # type: ignore[attr-defined]  # typeshed does not know it
    names = family(page.template)
    used = set().union(*(meta.find_undeclared_variables(parsed(name)) for name in names))
    defined = set().union(*(defined_in(name) for name in names), render.TEMPLATES.globals, {"viewer", "self"})
    fields = {field.name for field in dataclasses.fields(page)}
    assert used - defined - fields == set(), "variables without a field"
    assert fields - used == set(), "fields that the template does not use"


def test_each_page_is_rendered_with_its_own_context() -> None:
    bases = {name for template in TEMPLATES for name in family(template)[1:]}
    whole = [name for name in TEMPLATES if "layout.html" in family(name)[1:] and name not in bases]
    assert sorted(page.template for page in PAGES if page.template in whole) == whole


def test_templates_are_rendered_in_one_place() -> None:
    root = FOLDER.parents[1]
    found = [str(path.relative_to(root)) for path in root.rglob("*.py") if "get_template" in path.read_text()]
    assert found == ["web/render.py"]
