"""Every page, with what it needs to be worth looking at. `{module}` and the like are filled in by what `filled` made."""

from dataclasses import dataclass


@dataclass(frozen=True)
class View:
    name: str
    path: str
    signed_in: bool = True


VIEWS = (
    View("modules", "/"),
    View("modules-of-a-search", "/?q=words&tag=starter&sort=score"),
    View("modules-none", "/?q=nothing+of+the+kind", signed_in=False),
    View("module", "/adapters/{woven}"),
    View("module-to-a-visitor", "/adapters/starter/plurals", signed_in=False),
    View("module-with-findings", "/adapters/{odd}"),
    View("module-try", "/adapters/starter/plurals/try"),
    View("module-files", "/adapters/{woven}/files"),
    View("module-versions", "/adapters/{woven}/versions"),
    View("module-lineage", "/adapters/{woven}/lineage"),
    View("module-similar", "/adapters/starter/upper-case/similar"),
    View("module-settings", "/adapters/{woven}/settings"),
    View("upload", "/upload"),
    View("compose", "/new/compose?module=starter/plurals&module=starter/upper-case"),
    View("compose-again", "/new/compose?again={composed}"),
    View("train", "/new/train"),
    View("par", "/new/par"),
    View("reduce", "/new/reduce?module=starter/plurals"),
    View("evaluate", "/new/evaluate?module=starter/plurals"),
    View("convert", "/new/convert?module=starter/plurals"),
    View("generate", "/new/generate"),
    View("datasets", "/datasets"),
    View("dataset", "/datasets/starter/plurals-data"),
    View("dataset-new", "/datasets/new"),
    View("jobs", "/jobs"),
    View("job-composed", "/jobs/{composed}"),
    View("job-failed", "/jobs/{failed}"),
    View("job-answers", "/jobs/{answered}"),
    View("map", "/map"),
    View("scores", "/scores"),
    View("teams", "/teams"),
    View("team", "/teams/weavers"),
    View("join", "/join?invitation=secret"),
    View("account", "/account"),
    View("activity", "/activity"),
    View("system", "/system"),
    View("sign-in", "/login", signed_in=False),
    View("device", "/device?code=ABCD-EFGH"),
    View("error", "/adapters/weavers/not-there"),
    View("api", "/v1/docs"),
)
