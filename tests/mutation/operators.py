"""Small faults that a test should notice: every place of a source file where one can be made, and how."""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mod,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_PAIRS = [
    *[("min", "max"), ("amin", "amax"), ("argmin", "argmax"), ("minimum", "maximum"), ("cummin", "cummax")],
    *[("sum", "mean"), ("any", "all"), ("floor", "ceil"), ("zeros", "ones"), ("zeros_like", "ones_like")],
]
CALLS = {**dict(_PAIRS), **{right: left for left, right in _PAIRS}}
BUILTIN_CALLS = {"min", "max", "any", "all"}
# Negating a condition that is one of these alone is the same fault as swapping it.
_SELF_NEGATING = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        file: Path from the root of the checkout.
        line: Line of the fault, from 1.
        column: Column of the fault, from 0.
        function: Qualified name of the innermost function around it; empty at class or module level.
        operator: Kind of fault.
        start: First byte that is replaced.
        end: Byte after the last one.
        original: What stands there.
        replacement: What the mutant has instead.
        inserted: The bytes of it, with parentheses and line breaks as needed.
    """

    file: str
    line: int
    column: int
    function: str
    operator: str
    start: int
    end: int
    original: str
    replacement: str
    inserted: str

    def apply(self, source: bytes) -> bytes:
        """Return the source with this fault; all lines keep their numbers."""
        return source[: self.start] + self.inserted.encode() + source[self.end :]


def find_mutants(file: str, source: bytes) -> list[Mutant]:
    """Return all mutants of a file in the order of their place.

    Docstrings, annotations, decorators, imports, `__all__`, everything inside `raise`, texts and the arguments of
    warnings, logging and `print` stay as they are.
    """
    finder = _Finder(file, source)
    finder.visit(ast.parse(source))
    return sorted(set(finder.found), key=lambda mutant: (mutant.start, mutant.end, mutant.operator, mutant.replacement))


class _Finder(ast.NodeVisitor):
    def __init__(self, file: str, source: bytes) -> None:
        self.found: list[Mutant] = []
        self._file = file
        self._source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._scopes: list[str] = []  # of classes and functions, as in __qualname__
        self._functions: list[str] = []

    # Where nothing is changed.

    def visit_Import(self, node: ast.Import) -> None:
        """Stay out."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Stay out."""

    def visit_Raise(self, node: ast.Raise) -> None:
        """Stay out: what is raised is a message; when it is raised stands in the condition."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Stay out."""

    def visit_Assign(self, node: ast.Assign) -> None:
        """Stay out of `__all__` and of type aliases."""
        alias = not self._scopes and isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.BitOr)
        if not alias and not any(isinstance(item, ast.Name) and item.id == "__all__" for item in node.targets):
            for target in node.targets:
                self.visit(target)
            self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Change the value only."""
        if node.value is not None:
            self.visit(node.value)

    # Scopes.

    def visit_Module(self, node: ast.Module) -> None:
        """Go through all but the docstring."""
        self._body(node.body)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Go through the body."""
        self._scopes.append(node.name)
        self._body(node.body)
        self._scopes.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Go through the defaults and the body."""
        self._scopes.append(node.name)
        self._functions.append(".".join(self._scopes))
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.visit(default)
        self._scopes.append("<locals>")
        self._body(node.body)
        del self._scopes[-2:]
        self._functions.pop()

    def _body(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                self.visit(statement)

    # Faults.

    def visit_Expr(self, node: ast.Expr) -> None:
        """Delete a call that stands alone."""
        if isinstance(node.value, ast.Call):
            if _is_logging(node.value):
                return
            self._add(node, "delete statement", "pass")
        self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """Delete it, or change its operator."""
        self._add(node, "delete statement", "pass")
        if type(node.op) in ARITHMETIC:
            changed = copy.deepcopy(node)
            changed.op = ARITHMETIC[type(node.op)]()
            self._add(node, "swap arithmetic", changed)
        self.visit(node.target)
        self.visit(node.value)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Move the boundary, or turn an equality around."""
        for place, operator in enumerate(node.ops):
            changed = copy.deepcopy(node)
            changed.ops[place] = COMPARISONS[type(operator)]()
            self._add(node, "swap comparison", changed)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Change the operator, or leave the second term of a sum out."""
        texts = [isinstance(side, ast.Constant | ast.JoinedStr) and _is_text(side) for side in (node.left, node.right)]
        if type(node.op) in ARITHMETIC and not any(texts):
            changed = copy.deepcopy(node)
            changed.op = ARITHMETIC[type(node.op)]()
            self._add(node, "swap arithmetic", changed)
            if isinstance(node.op, ast.Add | ast.Sub):
                self._add(node, "drop term", node.left)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """Drop `not`, `~` or a minus; a negative number is one constant."""
        if isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            self._number(node, -node.operand.value)
            return
        self._add(node, "drop not" if isinstance(node.op, ast.Not | ast.Invert) else "drop minus", node.operand)
        self.visit(node.operand)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """Swap `and` and `or`."""
        changed = copy.deepcopy(node)
        changed.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self._add(node, "swap and/or", changed)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Change a number or a truth value."""
        if isinstance(node.value, bool):
            self._add(node, "swap True/False", str(not node.value))
        elif isinstance(node.value, int | float):
            self._number(node, node.value)

    def visit_keyword(self, node: ast.keyword) -> None:
        """Move an axis."""
        if node.arg in ("dim", "axis") and (axis := _integer(node.value)) is not None:
            self._add(node.value, "move axis", {0: "1", 1: "0"}.get(axis, str(axis - 1)))
        else:
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        """Swap a function for its opposite."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in CALLS and (isinstance(node.func, ast.Attribute) or name in BUILTIN_CALLS):
            end = self._span(node.func)[1]
            self._append("swap function", end - len(name.encode()), end, name, CALLS[name], CALLS[name])
        if _is_logging(node) or _is_warning(node):
            return
        if name == "isinstance":
            self.visit(node.args[0])
        elif name == "cast":
            self.visit(node.args[1])
        else:
            self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        """Negate the condition."""
        self._condition(node)

    def visit_Assert(self, node: ast.Assert) -> None:
        """Change the condition, not the message."""
        self.visit(node.test)

    def visit_While(self, node: ast.While) -> None:
        """Negate the condition."""
        self._condition(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """Negate the condition."""
        self._condition(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        """Negate the conditions."""
        for test in node.ifs:
            self._negate(test)
        self.generic_visit(node)

    def _condition(self, node: ast.If | ast.While | ast.IfExp) -> None:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self._negate(node.test)
            self.generic_visit(node)

    def _negate(self, test: ast.expr) -> None:
        alone = isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], _SELF_NEGATING)
        if not alone and not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)):
            self._add(test, "negate condition", ast.UnaryOp(ast.Not(), test))

    def _number(self, node: ast.expr, value: complex) -> None:
        if isinstance(value, int):
            self._add(node, "integer plus one", str(value + 1))
        elif isinstance(value, float):
            self._add(node, "scale float", repr(2 * value if value else 1.0))

    def _add(self, node: ast.expr | ast.stmt, operator: str, new: ast.AST | str) -> None:
        start, end = self._span(node)
        text = new if isinstance(new, str) else ast.unparse(new)
        # Parentheses keep the precedence and let an expression of several lines keep them.
        around = ("(", ")") if isinstance(node, ast.expr) else ("", "")
        lines = "\n" * self._source[start:end].count(b"\n")
        self._append(operator, start, end, ast.unparse(node), text, around[0] + text + lines + around[1])

    def _append(self, operator: str, start: int, end: int, original: str, replacement: str, inserted: str) -> None:
        line = self._source[:start].count(b"\n") + 1
        column = start - self._starts[line - 1]
        function = self._functions[-1] if self._functions else ""
        self.found.append(
            Mutant(
                file=self._file,
                line=line,
                column=column,
                function=function,
                operator=operator,
                start=start,
                end=end,
                original=original,
                replacement=replacement,
                inserted=inserted,
            )
        )

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._starts[node.lineno - 1] + node.col_offset, self._starts[node.end_lineno - 1] + node.end_col_offset


def _integer(node: ast.expr) -> int | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        return -node.operand.value if isinstance(node.operand.value, int) else None
    is_integer = isinstance(node, ast.Constant) and isinstance(node.value, int) and not isinstance(node.value, bool)
    return node.value if is_integer else None


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _names(node: ast.expr) -> Iterator[str]:
    while isinstance(node, ast.Attribute):
        yield node.attr
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id


def _is_logging(node: ast.Call) -> bool:
    return bool({"print", "logger", "logging", "_logger", "log_info"} & set(_names(node.func)))


def _is_warning(node: ast.Call) -> bool:
    return "warn" in list(_names(node.func)) or "rank_zero_warn" in list(_names(node.func))
