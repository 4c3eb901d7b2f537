"""All pages."""

from hub.web import (
    account,
    browse,
    datasets,
    device,
    hub_addresses,
    job,
    launch,
    library,
    module,
    module_aliases,
    module_settings,
    module_try,
    reference,
    share,
    sign_in,
    system,
    teams,
    upload,
)

MODULE = (module, module_aliases, module_settings, module_try, share)
PAGES = (browse, *MODULE, upload, launch, job, library, datasets, teams, account, system, sign_in, device, reference)
LAST = (hub_addresses,)  # after every other route of the application
