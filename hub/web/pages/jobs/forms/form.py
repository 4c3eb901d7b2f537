"""A form that starts jobs of one kind: which fields it shows, and how it converts between what is typed and the JSON of a request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ValidationError

from hub.registry.jobs.kinds import KINDS
from hub.registry.jobs.requests.common import Request
from hub.vocabulary import JobKind
from hub.web.model_forms import JsonObject, Typed, json_of, typed_of
from hub.web.pages.jobs.forms.controls import Control, ResultName, Switch, Unreadable


@dataclass(frozen=True)
class FieldGroup:
    """Fields under a heading that opens."""

    heading: str
    names: Sequence[str]
    hint: str = ""


@dataclass(frozen=True)
class JobForm:
    """`inputs` and `fields` are visible at once; the `groups` are closed at first. All three name fields of the request's model that take
    one input. A part of the request that takes more than one is a control.

    Where a form shows the adapters of one base, `base_hint` says why there is one base, and `refreshed_by` names the field on which it
    depends which of them fit. `links`: parameters of links on other pages -> the inputs that they fill.
    """

    kind: JobKind
    lead: str
    controls: Sequence[Control]
    fields: Sequence[str | Switch]
    groups: Sequence[FieldGroup]
    inputs: Sequence[str] = ()
    base_hint: str = ""
    refreshed_by: str = ""
    links: Mapping[str, str] = field(default_factory=dict)
    needs_base: bool = True

    @property
    def title(self) -> str:
        return KINDS[self.kind].title

    @property
    def model(self) -> type[Request]:
        return KINDS[self.kind].request

    @property
    def names(self) -> list[str]:
        fields = [name for name in self.fields if isinstance(name, str)]
        return [*self.inputs, *fields, *(name for group in self.groups for name in group.names)]

    @property
    def problem_names(self) -> list[str]:
        """The fields and controls that show what is wrong with them."""
        return [*self.names, *(name for control in self._all_controls for name in control.problem_names)]

    @property
    def sources(self) -> list[str]:
        """The fields that hold examples."""
        return [name for control in self.controls for name in control.sources]

    @property
    def makes_adapter(self) -> bool:
        return any(isinstance(control, ResultName) for control in self.controls)

    @property
    def _all_controls(self) -> list[Control]:
        return [*(item for item in self.fields if isinstance(item, Switch)), *self.controls]

    def to_json(self, typed: Typed) -> JsonObject:
        """The request that was typed. Raises Unreadable with the problems of all controls."""
        body: JsonObject = {"kind": self.kind, **json_of(self.model, self.names, typed)}
        problems: dict[str, str] = {}
        for control in self._all_controls:
            try:
                control.write(typed, body)
            except Unreadable as error:
                problems |= error.problems
        if problems:
            raise Unreadable(problems)
        return body

    def to_typed(self, request: Request) -> Typed:
        """What would have been typed for a request."""
        body: JsonObject = request.model_dump(mode="json", by_alias=True, exclude_unset=True)
        typed = {name: values for name, values in typed_of(body).items() if name in self.names}
        for control in self._all_controls:
            typed |= control.read(body)
        return Typed(typed)

    def settings(self, typed: Typed) -> Mapping[str, object]:
        """The request's settings as far as they are typed, else the defaults: enough to estimate how much the job computes."""
        fields = self.model.model_fields.items()
        settings: dict[str, object] = {
            name: _plain(info.get_default(call_default_factory=True)) for name, info in fields
        }
        body: JsonObject = json_of(self.model, self.names, typed)
        for control in self._all_controls:
            if not control.sources:
                try:
                    control.write(typed, body)
                except (Unreadable, ValidationError):
                    continue
        for name, value in body.items():
            default = settings.get(name)
            settings[name] = {**default, **value} if isinstance(default, dict) and isinstance(value, dict) else value
        for control in self.controls:
            settings |= control.settings(typed)
        return settings


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, BaseModel) else value
