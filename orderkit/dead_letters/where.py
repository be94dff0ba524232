"""A small, safe language for conditions on records: `price > 100 and product == "Lamp"`.

It is Python's syntax for comparisons, `in`, `and`, `or` and `not` over names and constants, and nothing else: no calls,
no arithmetic. What is not on the list is refused before anything is read. Where the fields are known, as an order's
are, no other name may be used. Where they are not, `customer.country` is a field of a field, a field that is not there
is None, and what cannot be compared, or is not there, is neither less nor more.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

from orderkit.errors import UsageError

Fields = Mapping[str, Any]
Value = Callable[[Fields], Any]

LONGEST = 1_000  # characters of a condition
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda one, many: one in many,
    ast.NotIn: lambda one, many: one not in many,
}
CONSTANTS = (str, int, float, bool, type(None))


class Where:
    """A condition on the fields of an order, or of any record.

    Args:
        text: the condition.
        fields: the names it may use; by default any.

    Attributes:
        missing: the fields that it uses and no record has had so far; of any record only.

    Raises:
        UsageError: it is no such condition; says what is wrong.
    """

    def __init__(self, text: str, fields: Collection[str] | None = None) -> None:
        self.text = text
        self._fields = fields
        self.missing: set[str] = set()
        try:
            if len(text) > LONGEST:
                raise SyntaxError(f"longer than {LONGEST} characters")
            self._test = self._compile(ast.parse(text.strip(), mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._wrong(getattr(error, "msg", None) or str(error)) from None

    def __call__(self, order: Fields) -> bool:
        """Whether the condition holds for a record.

        Raises:
            UsageError: it compares what cannot be compared, a price with a text, say.
        """
        if self.missing:
            self.missing -= order.keys()
        try:
            return bool(self._test(order))
        except TypeError as error:
            raise self._wrong(str(error)) from None

    def __reduce__(self) -> tuple[type[Where], tuple[str, Collection[str] | None]]:
        return Where, (self.text, self._fields)  # compiled anew in another process

    def _wrong(self, why: str) -> UsageError:
        names = "fields" if self._fields is None else ", ".join(self._fields)
        return UsageError(
            f"--where {self.text[:80]!r}: {why}. Compare {names} with <, ==, in and the like; join with and, or, not."
        )

    def _compile(self, node: ast.expr) -> Value:
        match node:
            case ast.BoolOp(op=ast.And(), values=values):
                parts = [self._compile(value) for value in values]
                return lambda order: all(part(order) for part in parts)
            case ast.BoolOp(op=ast.Or(), values=values):
                parts = [self._compile(value) for value in values]
                return lambda order: any(part(order) for part in parts)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                part = self._compile(operand)
                return lambda order: not part(order)
            case ast.Compare(left=left, ops=ops, comparators=rights):
                return self._comparison(left, ops, rights)
        return self._value(node)

    def _comparison(self, left: ast.expr, ops: list[ast.cmpop], rights: list[ast.expr]) -> Value:
        values = [self._value(part) for part in (left, *rights)]
        tests = []
        for i, op in enumerate(ops):
            if type(op) not in COMPARISONS:
                raise SyntaxError(f"`{type(op).__name__}` is not understood here")
            test = COMPARISONS[type(op)]
            tests.append((values[i], test if self._fields is not None else _softly(test), values[i + 1]))
        return lambda order: all(test(one(order), other(order)) for one, test, other in tests)

    def _value(self, node: ast.expr) -> Value:
        match node:
            case ast.Name() | ast.Attribute() if self._fields is None:
                return self._path(node)
            case ast.Name(id=name):
                if name not in (self._fields or ()):
                    raise SyntaxError(f"an order has no field {name!r}")
                return operator.itemgetter(name)
            case ast.Constant(value=constant) if isinstance(constant, CONSTANTS):
                return lambda _order: constant
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return lambda _order: -number
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                values = [self._value(part) for part in parts]
                return lambda order: [value(order) for value in values]
        raise SyntaxError(f"`{ast.unparse(node)[:40]}` is not understood here")

    def _path(self, node: ast.expr) -> Value:
        """Look up a field, or a field of a field; never an attribute of an object."""
        match node:
            case ast.Name(id=name):
                self.missing.add(name)
                return lambda record: record.get(name)
            case ast.Attribute(value=whole, attr=name):
                outer = self._path(whole)
                return lambda record: value.get(name) if isinstance(value := outer(record), Mapping) else None
        raise SyntaxError(f"`{ast.unparse(node)[:40]}` is not understood here")


def _softly(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """Let a comparison of what cannot be compared be false: the records of strangers are not all alike."""

    def soft(one: Any, other: Any) -> bool:
        try:
            return bool(test(one, other))
        except TypeError:
            return False

    return soft
