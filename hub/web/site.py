"""The routers of all pages."""

from hub.web.pages import account, datasets, device, hub_addresses, library, reference, sign_in, system, teams
from hub.web.pages.jobs import job, launch, listing
from hub.web.pages.modules import aliases, browse, overview, settings, share, tabs, try_out, upload

MODULE = (overview, tabs, aliases, settings, try_out, share)
PAGE_ROUTERS = (
    browse,
    *MODULE,
    upload,
    launch,
    listing,
    job,
    library,
    datasets,
    teams,
    account,
    system,
    sign_in,
    device,
    reference,
)
CATCH_ALL_ROUTERS = (hub_addresses,)  # after every other route of the application
