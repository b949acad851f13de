"""Whether every field of a class has a string under it that says what it means."""

from __future__ import annotations

import ast
import inspect
import textwrap


def undocumented_fields(kind: type) -> list[str]:
    """Names of annotated fields that no string follows."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    following = zip(definition.body, [*definition.body[1:], None], strict=True)
    return [
        node.target.id
        for node, after in following
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and after.value.value)
    ]
