"""The prefilter on real databases: never without an endpoint that the target matches, and worth its while.

PostgreSQL: see tests/support/postgres.py for how a fresh machine gets it.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.target import Endpoint, Target, parse_target
from protocol.target_tree import quote
from server.schema import agents
from server.target_sql import prefilter
from tests.support.examples import USUAL_EXAMPLES
from tests.support.postgres import private_postgres
from tests.support.targets import NASTY, NOW, WEB, endpoints, targets

__all__ = ["private_postgres"]

_several = st.lists(endpoints(), min_size=1, max_size=6)
_several_without_nul = st.lists(endpoints(with_nul=False), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def sqlite() -> Iterator[sa.Connection]:
    engine = sa.create_engine("sqlite://")
    agents.create(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture(scope="module")
def postgres(private_postgres: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(private_postgres)
    agents.create(engine)
    with engine.connect() as connection:
        yield connection
    agents.drop(engine)
    engine.dispose()


def _rows(known: list[Endpoint]) -> list[dict[str, object]]:
    return [
        {
            "id": f"{number:032x}",
            "public_key": b"",
            "enrolment": endpoint.status if endpoint.status in {"pending", "revoked"} else "enrolled",
            "enrolled": NOW,
            "modules": [],
            **{
                column: getattr(endpoint, column)
                for column in (
                    "name",
                    "os",
                    "arch",
                    "ident",
                    "version",
                    "heartbeattime",
                    "tags",
                    "environment",
                )
            },
        }
        for number, endpoint in enumerate(known)
    ]


def _fill(connection: sa.Connection, known: list[Endpoint]) -> None:
    with connection.begin():
        connection.execute(sa.delete(agents))
        connection.execute(sa.insert(agents), _rows(known))


def _let_through(connection: sa.Connection, target: Target, now: datetime | None = NOW) -> set[str]:
    with connection.begin():
        condition = prefilter(target, agents, connection.dialect.name, now)
        return set(connection.scalars(sa.select(agents.c.id).where(condition)))


def _with_ids(known: list[Endpoint]) -> list[Endpoint]:
    return [msgspec.structs.replace(each, id=f"{number:032x}") for number, each in enumerate(known)]


def _require_superset(
    connection: sa.Connection, target: Target, known: list[Endpoint], *, has_now: bool
) -> None:
    known = _with_ids(known)
    matched = {endpoint.id for endpoint in known if target.matches(endpoint)}
    _fill(connection, known)
    assert matched <= _let_through(connection, target, NOW if has_now else None)


@given(target=targets, known=_several, has_now=st.booleans())
@settings(max_examples=USUAL_EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
def test_sqlite_lets_every_endpoint_through_that_matches(
    sqlite: sa.Connection, target: Target, known: list[Endpoint], *, has_now: bool
) -> None:
    _require_superset(sqlite, target, known, has_now=has_now)


@pytest.mark.system
@given(target=targets, known=_several_without_nul, has_now=st.booleans())
@settings(max_examples=4 * USUAL_EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
def test_postgresql_lets_every_endpoint_through_that_matches(
    postgres: sa.Connection, target: Target, known: list[Endpoint], *, has_now: bool
) -> None:
    _require_superset(postgres, target, known, has_now=has_now)


# One of each kind of leaf; {} is a nasty string.
LEAVES = [
    "{field} = {text}",
    "{field} <> {text}",
    "{field} < {text}",
    "{field} <= {text}",
    "{field} > {text}",
    "{field} >= {text}",
    "{field} IN ({text}, 'x')",
    "{field} NOT IN ({text}, 'x')",
    "{field} LIKE {pattern}",
    "{field} ILIKE {pattern}",
    "{field} NOT LIKE {pattern}",
    "{field} NOT ILIKE {pattern}",
    "{field} IS NULL",
    "{field} ~ '[a-z]'",
    "{field} !~* '[a-z]'",
]
FIELDS = {"name": 1, "tags->>'operator'": 1, "environment->>'a\"b'": 7, "tags->>'$.a'": 7, "tags->>''": 7}
"""What is asked, and of how many nasty strings: each, or each seventh."""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.system)])
def database(request: pytest.FixtureRequest) -> sa.Connection:
    connection: sa.Connection = request.getfixturevalue(request.param)
    return connection


@pytest.mark.slow
@pytest.mark.parametrize("leaf", LEAVES)
def test_every_nasty_string_is_let_through_where_it_matches(database: sa.Connection, leaf: str) -> None:
    values = [*NASTY, None] if database.dialect.name == "postgresql" else [*NASTY, None, "a\0b", "\0"]
    known = _with_ids(
        [
            msgspec.structs.replace(
                WEB,
                name=value or "",
                tags={} if value is None else {"operator": value, "$.a": value, "": value},
                environment={} if value is None else {'a"b': value},
            )
            for value in values
        ]
    )
    _fill(database, known)
    for field, step in FIELDS.items():
        for text in NASTY[::step]:
            pattern = quote(text + "\\" if text.endswith("\\") and text != "\\\\" else text)
            condition = leaf.format(field=field, text=quote(text), pattern=pattern)
            for written in (condition, f"NOT ({condition} AND name <> 'no')"):
                target = parse_target(written)
                matched = {endpoint.id for endpoint in known if target.matches(endpoint)}
                assert matched <= _let_through(database, target), written


FLEET = [
    msgspec.structs.replace(WEB, name="web1", tags={"operator": "ops"}),
    msgspec.structs.replace(WEB, name="WEB2", os="darwin", tags={"operator": "it"}),
    msgspec.structs.replace(WEB, name="db1", status="idle", heartbeattime=NOW - timedelta(seconds=300)),
    msgspec.structs.replace(
        WEB, name="db2", status="offline", heartbeattime=NOW - timedelta(hours=1), tags={}
    ),
    msgspec.structs.replace(WEB, name="new", status="pending", heartbeattime=None),
]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("status = 'online'", "web1 WEB2"),
        ("status IN ('online', 'idle')", "web1 WEB2 db1"),
        ("status <> 'offline'", "web1 WEB2 db1 db2 new"),
        ("status = 'pending'", "web1 WEB2 db1 db2 new"),
        ("status = 'unheard of'", "web1 WEB2 db1 db2 new"),
        ("heartbeattime > NOW() - INTERVAL '10 minutes'", "web1 WEB2 db1"),
        ("heartbeattime < NOW() - INTERVAL '10 minutes'", "db2"),
        ("heartbeattime = NOW() - INTERVAL '1 hour'", "db2"),
        ("heartbeattime IS NULL", "new"),
        ("os = 'darwin'", "WEB2"),
        ("NOT os = 'darwin'", "web1 db1 db2 new"),
        ("NOT (os = 'linux' AND name > 'e')", "WEB2 db1 db2"),
        ("id IN ('00000000000000000000000000000001', 'x')", "WEB2"),
        ("tags->>'operator' IN ('ops', 'it') AND name NOT IN ('db1', 'new')", "web1 WEB2"),
        ("tags->>'operator' IS NULL", "db2"),
        ("NOT tags->>'operator' IS NULL AND os <> 'linux'", "WEB2"),
        ("tags->>'operator' <> 'it'", "web1 db1 new"),
        ("name ILIKE 'web%'", "web1 WEB2"),
        ("name LIKE 'd_1' OR name LIKE 'ne_'", "db1 new"),
        ("tags->>'operator' !~ 'x'", "web1 WEB2 db1 new"),
        ("TRUE", "web1 WEB2 db1 db2 new"),
        ("NOT TRUE", ""),
    ],
)
def test_the_database_narrows_the_search(database: sa.Connection, text: str, names: str) -> None:
    known = _with_ids(FLEET)
    _fill(database, known)
    through = _let_through(database, parse_target(text))
    assert {endpoint.name for endpoint in known if endpoint.id in through} == set(names.split())


def test_the_largest_targets_fit_both_databases(database: sa.Connection) -> None:
    known = _with_ids(FLEET)
    _fill(database, known)
    ids = ",".join(f"'{number:032x}'" for number in range(500))
    names = ",".join(["''"] * 8000)
    terms = " OR ".join(["name LIKE 'web%'"] * 511) + " OR " + "NOT (" * 15 + "os = 'x'" + ")" * 15
    for text in (f"id IN ({ids})", f"name NOT IN ({names})", terms, "name ILIKE '" + "%_" * 512 + "'"):
        target = parse_target(text)
        matched = {endpoint.id for endpoint in known if target.matches(endpoint)}
        assert matched <= _let_through(database, target)


def test_nothing_of_a_target_is_ever_part_of_the_statement() -> None:
    hostile = "x'; DROP TABLE agents; --"
    target = parse_target(
        f"name = {quote(hostile)} OR tags->>{quote(hostile)} = 'x' OR environment->>'a' LIKE {quote(hostile)}"
    )
    for dialect in ("sqlite", "postgresql"):
        statement = str(sa.select(agents.c.id).where(prefilter(target, agents, dialect, NOW)))
        assert "DROP" not in statement


def test_what_is_not_known_to_be_exact_is_let_through() -> None:
    plain_json = sa.Table(
        "agents", sa.MetaData(), sa.Column("tags", sa.JSON), sa.Column("name", sa.Text, nullable=False)
    )
    target = parse_target("tags->>'a' = 'b'")
    assert str(prefilter(target, plain_json, "postgresql")) == "true"
    assert str(prefilter(target, agents, "oracle")) == "true"
    assert str(prefilter(parse_target("tags->>'a\"b' = 'b'"), agents, "sqlite")) == "true"
