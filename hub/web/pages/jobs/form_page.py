"""The page of a form that starts jobs: its context, gathered from what is typed so far."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from hub.registry.access import permissions
from hub.registry.access.viewer import Viewer
from hub.registry.content import repos
from hub.registry.datasets import preview
from hub.registry.datasets.examples import Examples
from hub.registry.datasets.preview import Preview
from hub.registry.jobs import eligibility
from hub.registry.jobs.estimates import Estimate, estimate
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import HubError
from hub.registry.platform.services import Services
from hub.web.model_forms import Typed, Widget, model_field, widgets
from hub.web.pages.jobs.forms.controls import Switch, module_of, references
from hub.web.pages.jobs.forms.form import JobForm
from hub.web.pages.jobs.forms.kinds import LABELS
from hub.web.pages.jobs.forms.sources import DEFAULT_SHARE, dataset_rows, pasted_text
from hub.web.render import Page

MAX_SUGGESTED_DATASETS = 500  # any other can be typed


@dataclass(frozen=True)
class SourcePreview:
    """What one source of examples holds, or why that is not known."""

    source: str
    content: Preview | None = None
    problem: str = ""
    files: Sequence[str] = ()


@dataclass(frozen=True)
class FormEstimate:
    """How long the job may take. `sized`: there are examples, without which nothing is known. `range` is None without earlier jobs."""

    title: str
    sized: bool
    range: Estimate | None = None


@dataclass(frozen=True)
class WidgetGroup:
    heading: str
    hint: str
    widgets: Sequence[Widget]

    @property
    def open(self) -> bool:
        return any(widget.problem or widget.changed for widget in self.widgets)


@dataclass(frozen=True)
class PreviewPart(Page, template="new/preview.html"):
    """The first rows of one source of examples, which a script puts into the form."""

    preview: SourcePreview


@dataclass(frozen=True)
class EstimatePart(Page, template="new/estimate.html"):
    """How long the job would take, which a script puts into the form."""

    estimate: FormEstimate


@dataclass(frozen=True)
class JobFormPage(Page, template="new/form.html"):
    """The form that starts a job of one kind."""

    form: JobForm
    typed: Typed
    problems: Mapping[str, str]  # by the field or control that shows them; "" for those of the whole form
    notice: str
    labels: Mapping[str, str]
    inputs: Sequence[Widget]
    fields: Sequence[Widget]
    groups: Sequence[WidgetGroup]
    bases: Sequence[tuple[str, int]]  # name and number of adapters
    base: str
    modules: eligibility.CandidateList
    chosen: Sequence[str]  # adapters, by reference
    previews: Mapping[str, SourcePreview | None]  # by source
    estimate: FormEstimate
    datasets: Sequence[str]
    namespaces: Sequence[str]
    key: str  # of this form, so that it starts one job however often it is sent


def form_page(
    services: Services,
    viewer: Viewer,
    form: JobForm,
    typed: Typed,
    problems: Mapping[str, str],
    notice: str,
) -> JobFormPage:
    with transaction(services.sessions) as session:
        bases = eligibility.bases_with_modules(session, viewer)
        base = _base(session, viewer, typed, bases)
        previews = {name: source_preview(services, session, viewer, typed, name, base) for name in form.sources}
        datasets, _ = repos.listing(session, viewer, "dataset", limit=MAX_SUGGESTED_DATASETS, cursor=None)
        return JobFormPage(
            form=form,
            typed=typed,
            problems=problems,
            notice=notice,
            labels=LABELS,
            inputs=widgets(form.model, form.inputs, typed, problems, LABELS),
            fields=_fields(form, typed, problems),
            groups=[
                WidgetGroup(group.heading, group.hint, widgets(form.model, group.names, typed, problems, LABELS))
                for group in form.groups
            ],
            bases=bases,
            base=base,
            modules=_modules(session, viewer, form, typed, base),
            chosen=references(typed),
            previews=previews,
            estimate=form_estimate(session, viewer, form, typed, base, previews),
            datasets=[repo.full_name for repo, _ in datasets],
            namespaces=permissions.writable(session, viewer),
            key=typed.one("key") or uuid.uuid4().hex,
        )


def _fields(form: JobForm, typed: Typed, problems: Mapping[str, str]) -> list[Widget]:
    fields: list[Widget] = []
    for item in form.fields:
        fields += (
            [item.widget(typed)] if isinstance(item, Switch) else widgets(form.model, [item], typed, problems, LABELS)
        )
    return fields


def _base(session: Session, viewer: Viewer, typed: Typed, bases: Sequence[tuple[str, int]]) -> str:
    """The base that the form is about: the one named, that of the first adapter named, or the one with the most adapters."""
    if named := typed.one("base"):
        return named
    for reference in references(typed):
        if base := eligibility.base_of(session, viewer, module_of(reference)):
            return base
    return bases[0][0] if bases else ""


def _modules(session: Session, viewer: Viewer, form: JobForm, typed: Typed, base: str) -> eligibility.CandidateList:
    """Those that can take part in a composition of the chosen form, or, for other kinds of job, those that run."""
    if not form.refreshed_by:
        return eligibility.candidates(session, viewer, base)
    default = str(model_field(form.model, form.refreshed_by).default)
    return eligibility.candidates(
        session, viewer, base, form=typed.one(form.refreshed_by) or default, chosen=typed.all("module")
    )


def form_estimate(
    session: Session,
    viewer: Viewer,
    form: JobForm,
    typed: Typed,
    base: str,
    previews: Mapping[str, SourcePreview | None],
) -> FormEstimate:
    examples, held_out = (_bytes(previews.get(name)) for name in ("examples", "held_out"))
    examples += sum(preview.size_of(session, viewer, source) for source in dataset_rows(typed))
    share = typed.one("held_out.share", DEFAULT_SHARE)
    if typed.one("held_out.from") == "share" and share.isdigit():
        held_out = examples * min(int(share), 99) // 100
        examples -= held_out
    if not examples:
        return FormEstimate(form.title, sized=False)
    settings = form.settings(typed)
    seconds = estimate(session, form.kind, base, settings, examples=examples, held_out=held_out)
    return FormEstimate(form.title, sized=True, range=seconds)


def _bytes(source: SourcePreview | None) -> int:
    return source.content.size if source and source.content else 0


def source_preview(
    services: Services, session: Session, viewer: Viewer, typed: Typed, source: str, base: str
) -> SourcePreview | None:
    """None where there are no examples yet."""
    origin = typed.one(f"{source}.from", "paste")
    text = pasted_text(typed, source)
    if origin == "paste" and text.strip():
        return SourcePreview(source, preview.of_text(session, services.storage, base, text))
    dataset = typed.one(f"{source}.dataset")
    if origin != "dataset" or not dataset:
        return None
    options = {key: value for key in ("revision", "path") if (value := typed.one(f"{source}.{key}"))}
    try:
        files = preview.files(session, viewer, dataset)
        if len(files) != 1 and "path" not in options:
            problem = f"Choose a file of it: {', '.join(files) or 'there is none'}."
            return SourcePreview(source, problem=problem, files=files)
        examples = Examples(dataset=dataset, **options)
        content = preview.of_dataset(session, services.storage, viewer, base, examples)
        return SourcePreview(source, content, files=files)
    except HubError as error:
        return SourcePreview(source, problem=error.message)
