"""The exporter's rewriting rules, each tried only on nodes of the operator that it replaces.

onnxscript tries every rule on every node, and a rule with several outputs lists the whole graph
each time: the time grows with the square of the graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def rules_by_operator() -> Iterator[None]:
    """Let torch's exporter skip the nodes that a rule cannot match; the result is the same."""
    from onnxscript import rewriter

    private: Any = rewriter
    rules = getattr(private, "_DEFAULT_REWRITE_RULES", None)
    if rules is None:  # another version: slower, with the same result
        yield
        return
    private._DEFAULT_REWRITE_RULES = tuple(map(_RuleOfOperator, rules))
    try:
        yield
    finally:
        private._DEFAULT_REWRITE_RULES = rules


class _RuleOfOperator:
    """A `RewriteRule` that looks at the operator of a node first."""

    def __init__(self, rule: Any) -> None:
        self._rule = rule
        pattern = getattr(rule, "_target_pattern", None)
        # the node that a rule is tried on is always the first of the pattern's outputs
        first = next(iter(getattr(pattern, "output_nodes", ())), None)
        operator = first.op_identifier() if first is not None else None
        self._operator = operator and operator[:2]  # domain and name; None if it may be any

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rule, name)

    def try_rewrite(self, model: Any, graph: Any, node: Any, **options: Any) -> Any:
        """The replacement of `node`; None if the rule does not match."""
        if self._operator is not None and node.op_identifier()[:2] != self._operator:
            return None
        return self._rule.try_rewrite(model, graph, node, **options)
