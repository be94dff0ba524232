"""Break each law in a copy of the package, and see that the tests named beside it notice: `python tests/mutations.py`.

A change is an exact replacement of text: when the text is gone, that is an error here, and not a silent pass. The same
tests have to pass on a copy that nobody broke. Arguments choose mutations by their names; without any, all are made.
Exit status 1 when one survives.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 30  # seconds for a test: a mutation that hangs the loop is caught as well
LANES = 2  # mutations at the same time
FAILED = 1  # pytest's exit status
ELSEWHERE = 99  # the exit status when the tests would not run on the copy
RUN = f"""
import sys, orderkit, pytest
sys.exit(pytest.main(sys.argv[2:]) if orderkit.__file__.startswith(sys.argv[1]) else {ELSEWHERE})
"""


@dataclass(frozen=True)
class Mutation:
    """A law, broken.

    Args:
        name: what is wrong with it.
        file: where.
        old: text that is there exactly once.
        new: what takes its place.
        tests: `file::test` each, of which one at least has to fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, root: Path) -> None:
        """Change the file under `root`.

        Raises:
            LookupError: the text is not there, or more than once.
        """
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        if (found := text.count(self.old)) != 1:
            raise LookupError(
                f"{self.name}: the text to change is {found} times in {self.file}; mend tests/mutations.py"
            )
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


MUTATIONS = [
    Mutation(
        "commit before the acknowledgement", "orderkit/consuming/checkpoints.py",
        "while self._closed and not self._closed[0].unacknowledged:", "while self._closed:",
        ("test_dead_letters.py::test_nothing_is_committed_before_its_dead_letters_are_acknowledged",
         "test_partition.py::test_no_checkpoint_passes_an_unacknowledged_letter"),
    ),
    Mutation(
        "swallow a dead letter's error", "orderkit/dead_letters/writer.py",
        "            if error is None and report.offset() is not None:\n                self._accept(letter)\n"
        "            else:\n                self._refuse(letter, error or NOWHERE)\n",
        "            self._accept(letter)\n",
        ("test_dead_letters.py::test_a_refused_dead_letter_holds_its_partition_only",),
    ),
    Mutation(
        "move a replay's offsets before the acknowledgement", "orderkit/replay/sending.py",
        "        if shipment.error is not None or shipment.left:\n", "        if False:\n",
        ("test_replay.py::test_a_refused_request_loses_nothing",),
    ),
    Mutation(
        "let two replays of one group be at work", "orderkit/replay/claims.py",
        "if claim is not None and claim.id != mine.id and claim.is_live:", "if False:",
        ("test_replay_odd.py::test_two_replays_of_one_group_are_not_at_work_at_once",),
    ),
    Mutation(
        "pass over a letter whose topic is not there", "orderkit/replay/routing.py",
        "        batch.missing[topic] += 1\n        batch.stay.append(",
        "        batch.missing[topic] += 1\n        list().append(",
        ("test_replay_odd.py::test_letters_of_a_topic_that_is_gone_stay_and_go_when_it_is_back",),
    ),
    Mutation(
        "sleep on the poll thread", "orderkit/engines/base.py",
        "        self._member.hold(part, time.monotonic() + after)\n        return Answer.HOLD",
        "        time.sleep(after)\n        return Answer.AGAIN",
        ("test_consumer.py::test_other_partitions_flow_while_one_waits",),
    ),
    Mutation(
        "add an order again on its retry", "orderkit/consumer.py",
        'part.average.add_all([order["price"] for order in cast(list[Order], good)])',
        'part.average.add_all([order["price"] for order in cast(list[Order], good)])\n'
        '        part.average.add_all([orders[one.record]["price"] for one in attempts if one.number > 1])',
        ("test_consumer.py::test_an_order_that_recovers_is_averaged_once",),
    ),
    Mutation(
        "forget that a partition was revoked", "orderkit/members/group.py",
        "            for table in (self.parts, self.held):\n                table.pop(part.key, None)\n", "",
        ("test_rebalance.py::test_members_that_come_and_go_at_random",
         "test_rebalance.py::test_a_back_off_goes_with_its_partition",
         "test_rebalance.py::test_dead_letters_of_a_lost_partition_are_not_offered_again"),
    ),
    Mutation(
        "decode in the retry loop", "orderkit/retry/__init__.py",
        'if reason in ("poison", "permanent"):', 'if reason == "permanent":',
        ("test_retry.py", "test_consumer.py::test_poison_never_reaches_the_handler"),
    ),
    Mutation(
        "sum floats", "orderkit/account/average.py",
        "self.total += sum(int(price * UNIT) for price in prices)", "self.total += int(rough * UNIT)",
        ("test_average.py::test_adding_all_equals_adding_one_by_one",),
    ),
    Mutation(
        "start the average anew after a restart", "orderkit/consuming/partition.py",
        "self.average = replace(saved.average)", "self.average = type(saved.average)()",
        ("test_consumer.py::test_ten_restarts_lose_and_double_nothing[embedded]",),
    ),
    Mutation(
        "write into the average of the last commit", "orderkit/consuming/partition.py",
        "self.average = replace(saved.average)", "self.average = saved.average",
        ("test_partition.py::test_a_partition_does_not_write_into_what_it_was_given",),
    ),
    Mutation(
        "forget attempts at a restart", "orderkit/consuming/saved.py",
        "        if self.attempts:\n            failed[offset]", "        if False:\n            failed[offset]",
        ("test_consumer.py::test_attempts_survive_a_restart",),
    ),
    Mutation(
        "do not count an attempt that killed", "orderkit/consuming/attempts.py",
        "        if history.killed:\n", "        if False:\n",
        ("test_delivery.py::test_an_order_that_kills_is_dead_lettered_in_its_turn[at-least-once-embedded-pause]",),
    ),
    Mutation(
        "one attempt too many", "orderkit/retry/__init__.py",
        "if attempt < policy.max_attempts and", "if attempt <= policy.max_attempts and",
        ("test_consumer.py::test_an_order_has_three_attempts_and_no_more",),
    ),
    Mutation(
        "go on after a bug in the handler", "orderkit/retry/__init__.py",
        '    if reason == "fatal":\n        return Stop(reason)',
        '    if reason == "fatal":\n        return DeadLetter(reason)',
        ("test_consumer.py::test_a_bug_stops_the_consumer_with_the_offset_kept",),
    ),
    Mutation(
        "commit after the handler in at-most-once", "orderkit/delivery/at_most_once.py",
        "        if self._member.commits.now([(part, Checkpoint(part.backlog.offsets[-1] + 1, now))]):\n",
        "        if True:\n",
        ("test_delivery.py::test_at_most_once_loses_what_a_crash_interrupts[embedded]",),
    ),
    Mutation(
        "take back a commit with an older one", "orderkit/members/commits.py",
        "self._sent = {key: commit for key, commit in self._sent.items() if key not in newer}", "pass",
        ("test_commits.py::test_what_was_waited_for_is_not_taken_back",),
    ),
    Mutation(
        "say nothing of what a crash cost in at-most-once", "orderkit/consuming/partition.py",
        "self.lost = saved.lost + saved.ahead", "self.lost = saved.lost",
        ("test_delivery.py::test_at_most_once_loses_what_a_crash_interrupts[embedded]",),
    ),
    Mutation(
        "lose the key of a dead letter", "orderkit/dead_letters/writer.py",
        "message.value(), message.key(),", "message.value(), None,",
        ("test_dead_letters.py::test_key_value_and_headers_stay_byte_for_byte",),
    ),
    Mutation(
        "draw fates without the order", "orderkit/orders/faults.py",
        'f"{seed}/{purpose}/{attempt}/{order_id}"', 'f"{seed}/{purpose}/{attempt}"',
        ("test_faults.py",),
    ),
    Mutation(
        "report no order as lost", "orderkit/account/audit.py",
        "passed += 1", "pass",
        ("test_audit.py",),
    ),
    Mutation(
        "work on a partition that was undone", "orderkit/consumer.py",
        "self._take(current, messages)", "self._take(part, messages)",
        ("test_delivery.py::test_a_transaction_undone_between_two_partitions_loses_no_record",),
    ),
    Mutation(
        "skip a refused partition's wait", "orderkit/delivery/mode.py",
        "        if part.refused:\n", "        if False:\n",
        ("test_dead_letters.py::test_a_refused_dead_letter_holds_its_partition_only",
         "test_dead_letters.py::test_a_back_off_is_kept_while_a_letter_is_refused"),
    ),
    Mutation(
        "take a record twice", "orderkit/consuming/partition.py",
        "if offsets[0] < self._new_from or last - offsets[0] < len(offsets) - 1:", "if False:",
        ("test_partition.py",),
    ),
    Mutation(
        "take a record of an assignment that has ended", "orderkit/members/group.py",
        "if key_of(first) not in self._left:", "if True:",
        ("test_consumer_group.py::test_a_record_polled_in_an_assignment_that_has_ended_is_left_to_the_next_one",),
    ),
    Mutation(
        "take a commit that cannot be read for none", "orderkit/members/offsets.py",
        "        if offset.error:\n            raise KafkaException(offset.error)\n", "        pass\n",
        ("test_consumer_group.py::test_an_offset_that_cannot_be_read_is_not_taken_for_none",),
    ),
    Mutation(
        "ask only later what became of a refused commit", "orderkit/members/group.py",
        "        if not self.commits.is_stuck:  # what was sent", "        if False:  # what was sent",
        ("test_rebalance.py::test_what_was_refused_is_not_taken_for_done_when_another_has_done_it",),
    ),
    Mutation(
        "blame the first attempt's error for the last one's", "orderkit/consuming/attempts.py",
        "                if answer is AGAIN:\n                    ans",
        "                    if answer is AGAIN:\n                        ans",
        ("test_dead_letters.py::test_a_dead_letter_names_the_error_of_its_last_attempt",),
    ),
]  # fmt: skip


def copy_to(folder: Path) -> Path:
    """Copy what the tests need."""
    for name in ("orderkit", "tests", "schemas"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    return folder


def run_tests(root: Path, tests: Iterable[str]) -> str:
    """Run tests on the copy of the package under `root`, and give what the first failed one printed; `""`: all passed.

    Raises:
        LookupError: they cannot be run there.
    """
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:nbval", "--maxfail=1", "-m", "not kafka"]
    options += ["-o", f"timeout={LIMIT}"]
    names = [f"tests/{test}" for test in tests]
    unwatched = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST_"))}
    env = {**unwatched, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", RUN, str(root), *options, *names]
    run = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    if run.returncode not in (0, FAILED):
        why = "they would run on another copy of the package" if run.returncode == ELSEWHERE else run.stdout[-2000:]
        raise LookupError(f"{', '.join(names)} cannot be run: {why}{run.stderr[-2000:]}")
    return run.stdout[-4000:] if run.returncode else ""


def check(mutation: Mutation) -> str:
    """Say what became of a mutation: `caught`, or `SURVIVED`."""
    with tempfile.TemporaryDirectory(prefix="orderkit-mutation-") as place:
        root = copy_to(Path(place))
        mutation.apply(root)
        return "caught" if run_tests(root, mutation.tests) else "SURVIVED"


def check_all(mutations: Sequence[Mutation], told: Callable[[str, str], object]) -> bool:
    """Make mutations, and say whether every one was caught.

    Args:
        mutations: which.
        told: called with the answer and the name of each.

    Raises:
        LookupError: a text to change is gone, or the tests do not pass where nothing is broken.
    """
    with tempfile.TemporaryDirectory(prefix="orderkit-mutation-") as place:
        tests = sorted({test for mutation in mutations for test in mutation.tests})
        if failure := run_tests(copy_to(Path(place)), tests):
            raise LookupError(f"One of these fails where nothing is broken: {', '.join(tests)}\n{failure}")
    caught = True
    with ThreadPoolExecutor(LANES) as pool:
        for mutation, answer in zip(mutations, pool.map(check, mutations), strict=True):
            told(answer, mutation.name)
            caught = caught and answer == "caught"
    return caught


def main(wanted: list[str]) -> int:
    """Make the mutations, all or those wanted, and tell of each."""
    if unknown := set(wanted) - {mutation.name for mutation in MUTATIONS}:
        sys.exit(
            f"No such mutation: {', '.join(sorted(unknown))}. There are:\n" + "\n".join(one.name for one in MUTATIONS)
        )
    chosen = [mutation for mutation in MUTATIONS if not wanted or mutation.name in wanted]
    return int(not check_all(chosen, lambda answer, name: print(f"{answer:<9} {name}", flush=True)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
