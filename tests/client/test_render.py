import csv
import io
import json
import unicodedata
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.answers import Answer
from client.render import Show, make_writer, record_line
from client.tally import Tally
from protocol.command import CommandState
from protocol.documents import Command
from protocol.result import OperationResult, Problem, Result

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
AGENT = "a" * 32
MODULES = ("file",)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def result(*operations: OperationResult, **changes: Any) -> Result:
    members: dict[str, Any] = {
        "action": "x",
        "action_sha256": "y",
        "occurrence": "",
        "agent": AGENT,
        "status": "done",
        "started": NOW,
        "finished": NOW,
        "results": operations,
    }
    return Result(**{**members, **changes})


def rendered(format_name: str, *answers: Answer, show: Show | None = None, asked: int = 0) -> str:
    out = io.StringIO()
    writer = make_writer(format_name, out, show)
    agents = {answer.agent: answer.agent_name for answer in answers}
    roster = [
        Command(id="", agent=agent, agent_name=name, state=CommandState.DONE)
        for agent, name in agents.items()
    ]
    roster += [
        Command(id="", agent=f"{n:032}", agent_name=f"silent{n}", state=CommandState.SENT)
        for n in range(asked)
    ]
    tally = Tally("the-action", MODULES, roster)
    for answer in answers:
        if tally.add(answer):
            writer.write_answer(answer, MODULES)
    writer.close(tally, MODULES)
    return out.getvalue()


def found(*records: dict[str, Any], **changes: Any) -> OperationResult:
    return OperationResult(**{"found": bool(records), "status": "ok", "records": records, **changes})


@pytest.mark.slow
@given(st.text(), st.dictionaries(st.text(), json_values), st.text(), st.dictionaries(st.text(), json_values))
def test_whatever_an_agent_answers_nothing_hidden_is_printed(
    name: str, record: dict[str, Any], note: str, statistics: dict[str, Any]
) -> None:
    operation = found(record, notes=(note,), statistics=statistics)
    for format_name in ("table", "csv", "json", "jsonl"):
        text = rendered(format_name, Answer(AGENT, name, result(operation)), show="all", asked=1)
        assert not {unicodedata.category(character) for character in text} - {"Cc"} & HIDDEN
        assert {character for character in text if unicodedata.category(character) == "Cc"} <= {"\n"}


@pytest.mark.slow
@given(st.dictionaries(st.text(), json_values))
def test_a_record_is_one_line_whatever_it_holds(record: dict[str, Any]) -> None:
    assert record_line(record).isprintable()


@pytest.mark.slow
@given(st.dictionaries(st.text(), json_values, min_size=1))
def test_json_lines_give_back_what_the_agent_sent(record: dict[str, Any]) -> None:
    first = json.loads(rendered("jsonl", Answer(AGENT, "web1", result(found(record)))).splitlines()[0])
    assert first["records"] == json.loads(json.dumps([record]))


def test_a_record_shows_its_path_first() -> None:
    record = {
        "search": "s1",
        "path": "/etc/passwd",
        "size_bytes": 5,
        "hashes": {"sha256": "ab"},
        "note": "a b",
    }
    assert record_line(record) == '/etc/passwd  search=s1 size_bytes=5 hashes=sha256:ab note="a b"'


def test_a_table_shows_records_coverage_and_who_is_missing() -> None:
    web1 = Answer(
        AGENT, "web1", result(found({"path": "/x"}, statistics={"files_seen": 1200, "cpu_s": 0.25}))
    )
    assert rendered("table", web1, asked=1).splitlines() == [
        "web1  /x",
        "file: 1 agent answered, found on 1; files_seen 1,200; cpu up to 0.250 s",
        "no answer from silent0: sent: the command waits for the agent",
        "1 of 2 agents answered, found on 1; action the-action",
    ]


@pytest.mark.parametrize(
    "hole",
    [
        {"statistics": {"errors": 2}},
        {"statistics": {"files_seen": 0}},
        {"statistics": {"skipped": {"permission": 1}}},
        {"truncated": True},
        {"status": "failed"},
    ],
)
def test_nothing_found_is_never_said_plainly_when_the_coverage_has_a_hole(hole: dict[str, Any]) -> None:
    text = rendered("table", Answer(AGENT, "web1", result(found(**hole))), show="all")
    assert "nothing found;" not in text
    assert "nothing found\n" not in text


def test_nothing_found_is_said_plainly_when_everything_was_looked_at() -> None:
    text = rendered("table", Answer(AGENT, "web1", result(found(statistics={"files_seen": 3, "errors": 0}))))
    assert "file: 1 agent answered, nothing found; files_seen 3\n" in text


def test_without_any_answer_nothing_is_known() -> None:
    assert "file: 0 agents answered, so nothing is known" in rendered("table", asked=1)


def test_a_refusal_is_in_json_with_its_reason() -> None:
    problem = Problem(code="acl-refused", step=9, detail="no")
    refused = Answer(AGENT, "web1", result(status="refused", problem=problem))
    line, summary = map(json.loads, rendered("jsonl", refused).splitlines())
    assert (line["status"], line["found"], line["notes"]) == ("refused", False, ["acl-refused: no"])
    assert summary["summary"]["missing"][0]["reason"] == "acl-refused: no"
    assert summary["summary"]["exit"] == 4


def test_a_json_document_holds_results_and_summary() -> None:
    document = json.loads(rendered("json", Answer(AGENT, "web1", result(found({"a": 1})))))
    assert document["results"][0]["agent_name"] == "web1"
    assert document["results"][0]["started"] == "2026-11-20T12:00:00Z"
    assert document["summary"]["found_on"] == 1


def test_csv_has_a_row_for_each_record_and_no_formula() -> None:
    answer = Answer(
        AGENT, "=web", result(found({"path": "+1", "status": "mine"}, {"path": "/x", "mode": "-rw"}))
    )
    rows = list(csv.reader(rendered("csv", answer).splitlines()))
    assert rows == [
        ["agent", "agent_name", "operation", "module", "status", "path", "record.status", "mode"],
        [AGENT, "'=web", "0", "file", "ok", "'+1", "mine", ""],
        [AGENT, "'=web", "0", "file", "ok", "/x", "", "'-rw"],
    ]


@pytest.mark.parametrize(
    ("show", "shown"), [("found", ["web1"]), ("not-found", ["web2"]), ("all", ["web1", "web2"])]
)
def test_what_is_shown_can_be_chosen(show: Show, shown: list[str]) -> None:
    answers = (Answer(AGENT, "web1", result(found({"a": 1}))), Answer("b" * 32, "web2", result(found())))
    lines = [json.loads(line) for line in rendered("jsonl", *answers, show=show).splitlines()]
    assert [line["agent_name"] for line in lines if "agent_name" in line] == shown
    assert lines[-1]["summary"]["answered"] == 2


def test_many_notes_are_cut_and_counted() -> None:
    answer = Answer(AGENT, "web1", result(found(notes=tuple(f"note {number}" for number in range(30)))))
    assert "10 further notes: --json shows them all" in rendered("table", answer)
