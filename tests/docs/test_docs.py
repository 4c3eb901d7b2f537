"""The docs say what the code does: every command, setting, route, error code and finding is there, and every link leads somewhere."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fastapi.routing import APIRoute

from api import huggingface, v1
from hub import registry
from hub.registry.inspection import findings
from hub.registry.jobs.kinds import KINDS
from hub.registry.platform.errors import HubError
from hub.registry.platform.settings import Settings

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "hub",
    "hub/lora",
    "hub/registry",
    "hub/web",
    "hub/http",
    "hub/local",
    "workers",
    "api",
    "tests",
    "migrations",
    "bench",
)
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / package / "README.md" for package in PACKAGES),
    *sorted((ROOT / "hub/registry").glob("*/README.md")),
]


def text(name: str) -> str:
    return (ROOT / name).read_text()


def test_every_setting_is_in_operations() -> None:
    page = text("docs/operations.md")
    for name, field in Settings.model_fields.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name.upper()}` |")]
        assert field.description
        assert field.description in row
        if not field.is_required() and field.default not in (None, ""):
            assert f"`{field.default}`" in row


def test_every_route_is_in_the_api_guide_and_no_other() -> None:
    routes = {
        f"{method} {route.path.replace(':path', '')}"
        for subject in v1.SUBJECTS
        for route in subject.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    documented = set(re.findall(r"^\| `((?:GET|POST|PATCH|PUT|DELETE) [^`]+)` \|", text("docs/api.md"), re.MULTILINE))
    assert documented == routes


def test_every_route_of_the_hub_protocol_is_in_its_guide_and_no_other() -> None:
    modules = [
        importlib.import_module(f"api.huggingface.{found.name}") for found in pkgutil.iter_modules(huggingface.__path__)
    ]
    routes = {
        f"{method} {route.path.replace(':path', '')}"
        for module in modules
        if hasattr(module, "router")
        for route in module.router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    documented = re.findall(r"^\| `((?:GET|HEAD|POST|PUT|DELETE) [^`]+)` \|", text("docs/huggingface.md"), re.MULTILINE)
    assert set(documented) == routes


def subclasses(kind: type[HubError]) -> Iterator[type[HubError]]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def test_every_error_is_in_the_api_guide_with_its_status() -> None:
    for module in pkgutil.walk_packages(registry.__path__, "hub.registry."):
        importlib.import_module(module.name)
    page = text("docs/api.md").split("## Errors")[1].split("A job that fails")[0]
    rows = [line for line in page.splitlines() if line.startswith("| 4") or line.startswith("| 5")]
    documented = {(int(row[2:5]), code) for row in rows for code in re.findall(r"`([a-z_]+)`", row.split("|")[2])}
    own = {
        (error.status, error.code) for error in subclasses(HubError) if error.__module__.startswith(("hub.", "api."))
    }
    assert own - documented == set()
    assert documented - own == {(405, "method_not_allowed"), (422, "invalid_request")}, "those two are made in hub.http"


def test_every_job_error_is_in_the_api_guide() -> None:
    page = text("docs/api.md").split("A job that fails")[1].split("## Findings")[0]
    documented = set(re.findall(r"`([a-z_]+)`", page))
    sources = [*(ROOT / "hub/lora").rglob("*.py"), *(ROOT / "workers").rglob("*.py")]
    codes = {code for path in sources for code in re.findall(r'\bcode = (?:\w+, )?"([a-z_]+)"', path.read_text())}
    assert codes - documented == set()


def test_every_kind_of_job_is_in_the_api_guide() -> None:
    page = text("docs/api.md")
    missing = [kind for kind in KINDS if f"`{kind}`" not in page and f'"kind": "{kind}"' not in page]
    assert missing == []


def test_every_finding_is_in_the_api_guide_with_its_remedy() -> None:
    page = text("docs/api.md").split("## Findings")[1]
    for code, (severity, remedy) in findings.KNOWN.items():
        assert f"| `{code}` | {severity} | {remedy} |" in page
    for code in findings.BROKEN:
        assert f"`{code}`" in page


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_a_page_names_exist(page: Path) -> None:
    for command in re.findall(r"(?:`|^|&& )make ([a-z-]+)", page.read_text(), re.MULTILINE):
        assert command in make_targets(), f"{page.name}: make {command}"


def test_the_readme_and_make_help_list_every_command() -> None:
    documented = set(re.findall(r"^\| `make ([a-z-]+)", text("README.md"), re.MULTILINE))
    assert documented == make_targets()
    assert set(re.findall(r"^([a-z-]+):.* ## ", text("Makefile"), re.MULTILINE)) == make_targets()


def test_pre_commit_runs_what_make_lint_runs() -> None:
    recipe = text("Makefile").split("\nlint:")[1].split("\n\n")[0].splitlines()[1:]
    hooks = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks] == [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    words = page.read_text()
    for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", words):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"
    for path in re.findall(r"`((?:api|hub|workers|tests|bench|docs|docker|migrations)/[\w./-]+)`", words):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


def test_every_package_of_the_registry_has_a_readme() -> None:
    for package in (ROOT / "hub/registry").glob("*/__init__.py"):
        assert package.with_name("README.md").exists(), package.parent.name
