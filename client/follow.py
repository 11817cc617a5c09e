"""Follows an action that was submitted: takes its answers as they come, believes those that verify.

Ctrl-C and a server that goes away end the waiting, never what has come already.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from client.answers import Opener, Question, UnreadableAnswer, verify_answer
from client.api import Api
from client.names import KnownAgents
from client.progress import Waiting
from client.render import Writer
from client.screen import printable
from client.sending import campaign_text
from client.tally import Tally
from protocol.action import Action
from protocol.documents import Campaign, Command, ProgressEvent, ResultItem, Roster
from protocol.envelope import Envelope
from protocol.errors import EnvironmentFailure, InvalidInput, MigError
from protocol.schedule import parse_occurrence

# The server ends expired commands itself; this is for one that does not.
GRACE = timedelta(seconds=10)
_NONSENSE = frozenset({"bad-document", "bad-json", "too-large"})


def say(text: str) -> None:
    """Tell the investigator something beside the answers."""
    sys.stderr.write(f"mig: {printable(text)}\n")


def say_all(text: str) -> None:
    """Tell the investigator something of which no part may be cut off, however long it is."""
    sys.stderr.write(f"mig: {printable(text, len(text))}\n")


class Follower:
    """Takes the answers to one action.

    Args:
        api: where they come from.
        action: what was signed.
        envelope: how it was signed.
        writer: where verified answers go.
        known: which agent bore which name.
        opener: opens sealed answers; None where they stay closed.
        occurrence: which one of an action with a schedule.
        submitted: when the action's submission began, by the monotonic clock; None where it was before.
        clock: the time, UTC.

    """

    def __init__(
        self,
        *,
        api: Api,
        action: Action,
        envelope: Envelope,
        writer: Writer,
        known: KnownAgents,
        opener: Opener | None = None,
        occurrence: str = "",
        submitted: float | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._action = action
        self._writer = writer
        self._known = known
        self._opener = opener
        self._submitted = submitted
        self._clock = clock
        self._occurrence = occurrence
        roster = self._newest_roster()
        asked = frozenset(command.agent for command in roster)
        self._question = Question.of(action, envelope, asked, occurrence)
        self.tally = Tally(action.id, self._question.modules, roster)
        self._has_warned = False

    def follow(self) -> Tally:
        """Take answers until every command is final, or the action expired and a short while more."""
        deadline = max(self._end() + GRACE, self._clock() + GRACE)
        with self._taking() as waiting:
            for event in self._api.follow(self._action.id, deadline, self._on_trouble):
                if event.kind == "result":
                    self._take_event(event.data, waiting)
                elif event.kind == "progress":
                    self._take_progress(event.data, waiting)
                elif event.kind == "campaign":
                    self._take_campaign(event.data, waiting)
        return self._finish()

    def collect(self) -> Tally:
        """Take the answers that the server has, without waiting for more."""
        with self._taking() as waiting:
            for item in self._api.get_results(self._action.id, self._occurrence):
                self._take(item, waiting)
        return self._finish()

    @contextlib.contextmanager
    def _taking(self) -> Iterator[Waiting]:
        """Take answers; what ends the taking early, a server that makes no sense too, costs none of them."""
        waiting = Waiting(len(self.tally.roster))
        try:
            yield waiting
        except KeyboardInterrupt:
            say("no longer waiting; the action goes on: mig results " + self._action.id)
        except MigError as error:
            if not isinstance(error, EnvironmentFailure) and error.code not in _NONSENSE:
                raise
            self.tally.is_out_of_reach = True
            say(str(error))
        finally:
            waiting.close()

    def _end(self) -> datetime:
        """Return until when an agent may start."""
        calendar, moment = self._action.calendar, parse_occurrence(self._occurrence)
        if calendar is None or moment is None:
            return self._action.expireafter
        return moment + calendar.grace

    def _on_trouble(self, error: MigError) -> None:
        if not self._has_warned:
            self._has_warned = True
            say(f"{error}; trying again")

    def _take_event(self, data: bytes, waiting: Waiting) -> None:
        try:
            item = msgspec.json.decode(data, type=ResultItem)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self.tally.disbelieve(f"the server sent an answer of another shape: {error}")
            return
        self._take(item, waiting)

    def _take_progress(self, data: bytes, waiting: Waiting) -> None:
        """Show how far an agent is; what makes no sense is not shown, since nothing depends on it."""
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            news = msgspec.json.decode(data, type=ProgressEvent)
            command = self.tally.roster.get(news.agent)
            if command is not None and command.id == news.id and news.agent not in self.tally.answered:
                waiting.hear(news.agent, news)

    def _take_campaign(self, data: bytes, waiting: Waiting) -> None:
        """Show how a paced action stands, and say it where a wave begins, and where it was stopped."""
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            news = msgspec.json.decode(data, type=Campaign)
            before, self.tally.campaign = self.tally.campaign, news
            waiting.stage(campaign_text(news))
            if before is None or (before.state, before.wave) != (news.state, news.wave):
                with waiting.aside():
                    say(campaign_text(news))

    def _take(self, item: ResultItem, waiting: Waiting) -> None:
        if item.occurrence != self._occurrence:
            return  # the stream tells of all occurrences
        try:
            answer = verify_answer(item, self._question, self._opener)
        except InvalidInput as error:
            self.tally.disbelieve(error.detail)
            return
        except UnreadableAnswer as error:
            self.tally.add_unreadable(error)
            return
        warning = self._known.note(answer.agent_name, answer.agent)
        with waiting.aside():
            if warning is not None:
                self.tally.warnings.append(warning)
                say(f"warning: {warning}")
            if self.tally.add(answer):
                self._writer.write_answer(answer, self._question.modules)
                sys.stdout.flush()  # whoever reads a pipe wants answers as they come
        waiting.advance(answer.agent, len(self.tally.answered) + len(self.tally.problems))

    def _finish(self) -> Tally:
        if not self.tally.is_complete and not self.tally.is_out_of_reach:
            try:
                self.tally.update_roster(self._newest_roster())
            except MigError as error:
                self.tally.is_out_of_reach = True
                say(str(error))
        if self._submitted is not None:
            self.tally.elapsed_s = time.monotonic() - self._submitted
        self._writer.close(self.tally, self._question.modules)
        self._known.close()
        return self.tally

    def _newest_roster(self) -> tuple[Command, ...]:
        roster: Roster = self._api.get_roster(self._action.id, self._occurrence)
        return tuple(command for command in roster.commands if command.occurrence == self._occurrence)
