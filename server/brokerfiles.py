"""What a broker of ours is told: what every one is, and all the settings of a private node.

Names of settings: https://www.rabbitmq.com/docs/configure; those of connections that it has no names for are
Erlang's, inet(3), and Linux's, tcp(7).
"""

ACCOUNT = "mig-server"
VHOST = "mig"
MAX_CHANNELS = 32
AUTH_PLUGIN = "rabbitmq_auth_backend_http"
CACHE_PLUGIN = "rabbitmq_auth_backend_cache"
# So long the broker keeps what an agent may do, and never who is let in: it would ask twice about each
# message of a channel that was idle (docs/adr/0013-permissions-kept.md).
PERMISSIONS_S = 1800
TWICE = "user-twice"  # the last part of the path where such a broker asks about logins
HANDSHAKE_MS = 30_000  # as long as an agent waits; the broker's ten seconds are too few when a fleet returns
MAX_MESSAGE_BYTES = 4 << 20  # a sealed answer of 1 MiB is 2.5 MiB: three times in base64

# A scheduler has much to do before it wakes another: for the odd heartbeat that costs as much as the work.
ERLANG_FLAGS = "+swt very_high -kernel inet_dist_use_interface {127,0,0,1}"
_CONFIG = """\
# Written at each start of the node; changes here are lost.
listeners.tcp.1 = 127.0.0.1:{port}
default_user = {account}
default_pass = {password}
default_vhost = {vhost}
default_user_tags.administrator = true
default_permissions.configure = .*
default_permissions.read = .*
default_permissions.write = .*
auth_mechanisms.1 = PLAIN
auth_backends.1 = internal
{agents}\
# That somebody is gone the kernel finds out sooner, and wakes no process for it (advanced.config).
heartbeat = 300
channel_max = {max_channels}
handshake_timeout = {handshake_ms}
max_message_size = {max_message_bytes}
# A laptop's share: publishers are held back above a quarter of the memory, or below this much free disk.
vm_memory_high_watermark.relative = 0.25
disk_free_limit.absolute = 64MB
log.console = false
log.file = node.log
log.file.level = info
log.file.rotation.size = 10485760
log.file.rotation.count = 3
"""
_ADVANCED = """\
% Written at each start of the node; changes here are lost.
[{rabbit, [
  {tcp_listen_options, [
    % The broker's own; any option that is named takes them all away.
    {nodelay, true}, {linger, {true, 0}}, {exit_on_close, false},
    % A fleet fits into it.
    {backlog, 4096},
    % The broker reads into as much as the larger buffer of a socket; on loopback the kernel's is 4 MiB by
    % itself, which it would take from the system, and give back, for every message.
    {sndbuf, 131072},
    % Who is silent for 45 s is asked by the kernel whether he is there, three times, 15 s apart:
    % TCP_KEEPIDLE, _KEEPINTVL, _KEEPCNT. What is not taken for 60 s ends a connection: TCP_USER_TIMEOUT.
    {keepalive, true}, {raw, 6, 4, <<45:32/native>>}, {raw, 6, 5, <<15:32/native>>},
    {raw, 6, 6, <<3:32/native>>}, {raw, 6, 18, <<60000:32/native>>}
  ]},
  % Both go through all connections, by themselves every two minutes and every minute; the first takes a
  % second for 10,000 that rest.
  {core_metrics_gc_interval, 1800000}, {channel_tick_interval, 600000}
]}].
"""


def agents_settings(auth_listen: str) -> dict[str, str]:
    """Return the broker's settings by which our listener answers for agents (`server.brokerauth`).

    It asks about each login, and keeps for `PERMISSIONS_S` seconds what was allowed to whom.
    """
    paths = {"user": TWICE, "vhost": "vhost", "resource": "resource", "topic": "topic"}
    return {
        "auth_backends.2.authn": "http",
        "auth_backends.2.authz": "cache",
        "auth_cache.cached_backend": "http",
        "auth_cache.cache_ttl": str(1000 * PERMISSIONS_S),
        "auth_http.http_method": "post",
        **{f"auth_http.{what}_path": f"http://{auth_listen}/auth/{path}" for what, path in paths.items()},
    }


def private_node_files(*, port: int, password: str, auth_listen: str) -> dict[str, str]:
    """Return the files of a node's directory that hold its settings, by name.

    Args:
        port: on which it listens for AMQP, on loopback alone.
        password: of `ACCOUNT`, in characters that need no quotes.
        auth_listen: where the server answers for agents, "host:port".

    """
    agents = agents_settings(auth_listen)
    config = _CONFIG.format(
        port=port,
        account=ACCOUNT,
        password=password,
        vhost=VHOST,
        agents="".join(f"{name} = {value}\n" for name, value in agents.items()),
        max_channels=MAX_CHANNELS,
        handshake_ms=HANDSHAKE_MS,
        max_message_bytes=MAX_MESSAGE_BYTES,
    )
    return {
        "rabbitmq.conf": config,
        "advanced.config": _ADVANCED,
        "enabled_plugins": f"[{AUTH_PLUGIN},{CACHE_PLUGIN}].\n",
    }
