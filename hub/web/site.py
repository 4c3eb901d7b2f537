"""All pages."""

from hub.web import (
    account,
    browse,
    datasets,
    device,
    job,
    launch,
    library,
    module,
    reference,
    sign_in,
    system,
    teams,
    upload,
)

PAGES = (browse, module, upload, launch, job, library, datasets, teams, account, system, sign_in, device, reference)
