"""Model cards of results: Markdown that says what the adapter is, how good it is beside its controls, and how to load it.

One template a kind of job, rendered from its params and its manifest alone.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hub.formats.report import Estimate
from hub.registry.inspection.model_card import Card
from hub.registry.jobs.contracts.common import Manifest, Params, TrainingCurve
from hub.registry.jobs.contracts.compose import ComposeManifest, ComposeParams
from hub.registry.jobs.contracts.convert import ConvertManifest, ConvertParams
from hub.registry.jobs.kinds import KINDS
from hub.vocabulary import JobKind

SHOWN = 10  # rows of a curve: its shape; loraloom.json has all of it

STYLES = {"peft": "PEFT", "loralib": "Microsoft's loralib", "mlx": "MLX", "diffusers": "diffusers"}

# What an identifier says by itself: cc-by-nc-4.0, fair-noncommercial-research-license. One that forbids it in its text alone is not told.
_NON_COMMERCIAL = re.compile(r"(?<![a-z])nc(?![a-z])|non-?commercial|research", re.IGNORECASE)
_UNKNOWN = (None, "unknown", "other")


def card(kind: JobKind, params: Params, manifest: Manifest) -> str:
    return _render(kind, {"params": params, "manifest": manifest})


def composition_card(params: ComposeParams, manifest: ComposeManifest) -> str:
    return _render("compose", {"params": params, "manifest": manifest, "licences": _licences(params, manifest)})


def conversion_card(params: ConvertParams, manifest: ConvertManifest, source: Card) -> str:
    """How the conversion came about, then the source's own card, whose front matter it keeps."""
    front = {**source.front, "base_model": manifest.base.id, "library_name": "peft"}
    front["tags"] = list(dict.fromkeys([*source.values("tags"), "lora", "loraloom"]))
    context = {"params": params, "manifest": manifest, "front": front, "source": source.text.strip(), "styles": STYLES}
    return _render("convert", context)


def _render(kind: JobKind, context: Mapping[str, object]) -> str:
    return _templates.get_template(KINDS[kind].card or "").render(context)


@dataclass(frozen=True)
class Licences:
    """Of the base and of every adapter that takes part, as their owners named it: the result stands under all of them.

    `own` is the one that the result may name, if there is one.
    """

    by_name: Mapping[str, str | None]
    own: str | None

    @property
    def closed(self) -> Sequence[str]:
        return [name for name, licence in self.by_name.items() if _forbids(licence)]

    @property
    def unknown(self) -> Sequence[str]:
        return [name for name, licence in self.by_name.items() if licence in _UNKNOWN]


def _licences(params: ComposeParams, manifest: ComposeManifest) -> Licences:
    used = {module.commit for module in manifest.inputs.modules or []}
    modules = {pinned.name: pinned.licence for pinned in params.modules if pinned.commit in used}
    own = next(iter(modules.values())) if len(set(modules.values())) == 1 else None
    if _forbids(params.base.licence) and not _forbids(own):
        own = None  # the adapters' own licence would promise what the base does not allow
    return Licences({params.base.id: params.base.licence} | modules, own)


def _forbids(licence: str | None) -> bool:
    return bool(licence and _NON_COMMERCIAL.search(licence))


def _curve_rows(curve: TrainingCurve) -> list[tuple[int, float | None, float | None]]:
    """(step, training loss, validation loss): so few of them that the shape can be read."""
    every, losses, validations = curve.every, curve.losses, dict(curve.validations)
    steps = sorted({*range(every, every * len(losses) + 1, every * max(1, len(losses) // SHOWN)), *validations})
    return [
        (
            step,
            losses[min(step, every * len(losses)) // every - 1] if step >= every else None,
            validations.get(step),
        )
        for step in steps[:: max(1, len(steps) // (2 * SHOWN))]
    ]


def _interval(estimate: Estimate) -> str:
    return f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701 - Markdown, which pages sanitise when they show it
)
_templates.filters |= {
    "yaml": lambda values: yaml.safe_dump(values, sort_keys=True, allow_unicode=True).strip(),
    "arm": lambda name: name.replace("_", " ").replace("module", "adapter"),
    "words": lambda name: name.replace("_", " "),
    "interval": _interval,
    "percent": lambda share: f"{share:.1%}",
    "thousands": lambda count: f"{count:,}",
    "curve_rows": _curve_rows,
    "result_name": lambda full_name: full_name.partition("/")[2],
}
