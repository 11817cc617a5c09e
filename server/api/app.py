"""Puts the API together."""

from litestar import Litestar, Router, get
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide

from protocol.documents import Health
from protocol.envelope import MAX_ENVELOPE_BYTES
from server.api import access, actions, agents, alerts, audit, downloads, pages, trust
from server.api.described import refusals
from server.api.errors import HANDLERS
from server.api.headers import add_security_headers
from server.services import Services
from server.sessions import Sessions


@get("/health", summary="Show the server's health", tags=["server"], responses=refusals())
async def show_health(services: NamedDependency[Services]) -> Health:
    """Ask database and broker; return within some seconds how they stand. For monitoring, without a login."""
    database, broker = await services.health.look()
    return Health(
        status="ok" if (database, broker) == ("ok", "ok") else "degraded",
        database=database,
        broker=broker,
        version=services.version,
    )


def make_app(services: Services) -> Litestar:
    """Return the API over these services; it holds no state but challenges."""
    sessions = Sessions(
        database=services.database, store=services.store, url=services.config.url, clock=services.clock
    )
    api = Router(
        "/api/v1",
        route_handlers=[
            show_health,
            access.make_challenge,
            access.open_session,
            access.list_investigators,
            agents.find_agents,
            agents.show_agent,
            agents.decide_on_agents,
            actions.submit,
            actions.cancel,
            actions.list_actions,
            actions.show_action,
            actions.list_commands,
            actions.list_results,
            actions.follow,
            alerts.list_alerts,
            alerts.follow_alerts,
            audit.read_audit,
            audit.list_witnesses,
            trust.publish,
            trust.show,
        ],
    )
    dependencies = {
        "services": Provide(lambda: services, sync_to_thread=False),
        "sessions": Provide(lambda: sessions, sync_to_thread=False),
    }
    documentation = pages.Pages([api, downloads.download_agent], dependencies, services.version)
    return Litestar(
        route_handlers=[
            api,
            downloads.download_agent,
            Router("/api/v1", route_handlers=[pages.show_description, pages.show_page, pages.show_asset]),
        ],
        dependencies={**dependencies, "pages": Provide(lambda: documentation, sync_to_thread=False)},
        state=State({"sessions": sessions}),
        exception_handlers=HANDLERS,
        before_send=[add_security_headers],
        request_max_body_size=MAX_ENVELOPE_BYTES,
        openapi_config=None,
        logging_config=None,
    )
