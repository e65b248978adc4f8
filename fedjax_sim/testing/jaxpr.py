"""A walk over a traced program that knows which values depend on chosen inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Visit = Callable[[Any, list[bool]], None]
"""``(equation, depends) -> None``: called for every equation; ``depends`` has one entry for each
operand."""


def walk(jaxpr: Any, depends: Sequence[bool], visit: Visit) -> list[bool]:
    """Follows dependence through a program, into every loop, branch and call.

    Args:
      jaxpr: a ``Jaxpr`` or a ``ClosedJaxpr``; its constants depend on nothing.
      depends: for each input, whether it is one of the chosen inputs or depends on them.
      visit: called for every equation, once it is known what its operands depend on. Equations of
        a loop may be visited several times; the last visit is the one that counts.

    Returns:
      For each output, whether it depends on the chosen inputs.
    """
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    known = dict.fromkeys(inner.constvars, False)
    known.update(zip(inner.invars, depends, strict=True))
    for equation in inner.eqns:
        operands = [_known(known, var) for var in equation.invars]
        visit(equation, operands)
        known.update(zip(equation.outvars, _outputs(equation, operands, visit), strict=True))
    return [_known(known, var) for var in inner.outvars]


def _known(known: dict[Any, bool], var: Any) -> bool:
    """Whether a variable depends on the inputs; literals do not."""
    return False if hasattr(var, "val") else known.get(var, False)


def _outputs(equation: Any, operands: list[bool], visit: Visit) -> list[bool]:
    """Dependence of an equation's outputs, found inside it where it contains programs."""
    name = equation.primitive.name
    if name == "scan":
        return _scan(equation.params, operands, visit)
    if name == "while":
        return _while(equation.params, operands, visit)
    if name == "cond":
        branches = [walk(branch, operands[1:], visit) for branch in equation.params["branches"]]
        return [any(outputs) for outputs in zip(*branches, strict=True)]
    programs = [p for value in equation.params.values() for p in _programs(value)]
    results = [_call(inner, operands, visit) for inner in programs]
    if len(results) == 1 and len(results[0]) == len(equation.outvars):
        return results[0]
    return [any(operands)] * len(equation.outvars)


def _call(program: Any, operands: list[bool], visit: Visit) -> list[bool]:
    """A program that an equation contains: operands in order where their number fits, otherwise
    all of them for each input."""
    count = len(getattr(program, "jaxpr", program).invars)
    same = count == len(operands)
    return walk(program, operands if same else [any(operands)] * count, visit)


def _programs(value: Any) -> list[Any]:
    """Programs among an equation's parameters."""
    if hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns"):
        return [value]
    return [p for part in value for p in _programs(part)] if isinstance(value, tuple | list) else []


def _scan(params: dict[str, Any], operands: list[bool], visit: Visit) -> list[bool]:
    consts = params["num_consts"]
    ends = consts + params["num_carry"]

    def body(carry: list[bool]) -> list[bool]:
        return walk(params["jaxpr"], [*operands[:consts], *carry, *operands[ends:]], visit)

    carry = _settle(operands[consts:ends], lambda carry: body(carry)[: len(carry)])
    return [*carry, *body(carry)[len(carry) :]]


def _while(params: dict[str, Any], operands: list[bool], visit: Visit) -> list[bool]:
    conds = params["cond_nconsts"]
    ends = conds + params["body_nconsts"]

    def body(carry: list[bool]) -> list[bool]:
        return walk(params["body_jaxpr"], [*operands[conds:ends], *carry], visit)

    carry = _settle(operands[ends:], body)
    walk(params["cond_jaxpr"], [*operands[:conds], *carry], visit)
    return carry


def _settle(carry: list[bool], body: Callable[[list[bool]], list[bool]]) -> list[bool]:
    """Dependence of a loop's carry, which may grow from one turn to the next until it stays the
    same."""
    while True:
        after = [a or b for a, b in zip(carry, body(carry), strict=True)]
        if after == carry:
            return carry
        carry = after
