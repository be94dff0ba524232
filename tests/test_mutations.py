"""Every law is held by a test: each is broken in a copy of the package, and the suite has to notice."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mutations import MUTATIONS, ROOT, Mutation, check_all, run_tests


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_can_be_made_and_noticed(mutation: Mutation, tmp_path: Path) -> None:
    """What is broken is code that runs still: it parses before and after, and its tests are there."""
    copy = tmp_path / mutation.file
    copy.parent.mkdir(parents=True)
    shutil.copy(ROOT / mutation.file, copy)
    mutation.apply(tmp_path)
    ast.parse(copy.read_text(encoding="utf-8"))
    for test in mutation.tests:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}" in (ROOT / "tests" / file).read_text(encoding="utf-8")


def test_every_test_beside_a_mutation_is_there() -> None:
    """A test that was renamed, or has other parameters now, is noticed before somebody asks for all mutations."""
    names = sorted({f"tests/{test}" for mutation in MUTATIONS for test in mutation.tests})
    options = ["--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:nbval"]
    command = [sys.executable, "-m", "pytest", *options, *names]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-2000:]


SHORT = ("acknowledgement", "swallow", "sleep", "add an order", "forget that", "decode", "sum floats", "was undone")


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_no_broken_law_goes_unnoticed() -> None:
    """The tests beside a mutation pass on the package as it is, and one of them fails where it is made.

    The laws of the design, that is; `ORDERKIT_LONG=1`, or `python tests/mutations.py`, breaks all there are.
    """
    chosen = [one for one in MUTATIONS if os.environ.get("ORDERKIT_LONG") == "1" or any(w in one.name for w in SHORT)]
    assert len(chosen) >= len(SHORT)
    told: dict[str, str] = {}
    check_all(chosen, lambda answer, name: told.setdefault(name, answer))
    assert told == {mutation.name: "caught" for mutation in chosen}


def test_a_mutation_that_breaks_nothing_survives() -> None:
    """The check can fail: a change that no test can see is told."""
    told: list[str] = []
    tests = ("test_average.py::test_the_examples_do_break_a_float_sum",)
    harmless = Mutation("m", "orderkit/account/average.py", "from __future__", "\nfrom __future__", tests)
    assert not check_all([harmless], lambda answer, name: told.append(f"{answer} {name}"))
    assert told == ["SURVIVED m"]


def test_tests_that_cannot_be_run_are_no_catch(tmp_path: Path) -> None:
    """A wrong name, or tests that would run on the installed package, end the check."""
    with pytest.raises(LookupError, match="cannot be run"):
        run_tests(ROOT, ["test_average.py::test_that_is_not_there"])
    with pytest.raises(LookupError, match="another copy"):
        run_tests(tmp_path, ["test_average.py"])


def test_a_text_that_is_gone_is_an_error(tmp_path: Path) -> None:
    """A mutation that changes nothing must not count as caught."""
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(LookupError, match=r"0 times in a\.py"):
        Mutation("m", "a.py", "x = 2", "x = 3", ("t",)).apply(tmp_path)
