"""A small, safe language for conditions on orders: `price > 100 and product == "Lamp"`.

It is Python's syntax for comparisons, `in`, `and`, `or` and `not` over names and constants, and nothing else: no calls,
no attributes, no arithmetic. What is not on the list is refused before anything is read.
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
    """A condition on the fields of an order.

    Args:
        text: the condition.
        fields: the names it may use.

    Raises:
        UsageError: it is no such condition; says what is wrong.
    """

    def __init__(self, text: str, fields: Collection[str]) -> None:
        self.text = text
        self._fields = fields
        try:
            if len(text) > LONGEST:
                raise SyntaxError(f"longer than {LONGEST} characters")
            self._test = self._compile(ast.parse(text.strip(), mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._wrong(getattr(error, "msg", None) or str(error)) from None

    def __call__(self, order: Fields) -> bool:
        """Whether the condition holds for an order.

        Raises:
            UsageError: it compares what cannot be compared, a price with a text, say.
        """
        try:
            return bool(self._test(order))
        except TypeError as error:
            raise self._wrong(str(error)) from None

    def __reduce__(self) -> tuple[type[Where], tuple[str, Collection[str]]]:
        return Where, (self.text, self._fields)  # compiled anew in another process

    def _wrong(self, why: str) -> UsageError:
        return UsageError(
            f"--where {self.text[:80]!r}: {why}. Compare {', '.join(self._fields)} with <, ==, in and the like; "
            "join with and, or, not."
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
            tests.append((values[i], COMPARISONS[type(op)], values[i + 1]))
        return lambda order: all(test(one(order), other(order)) for one, test, other in tests)

    def _value(self, node: ast.expr) -> Value:
        match node:
            case ast.Name(id=name):
                if name not in self._fields:
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
