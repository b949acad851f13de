"""`tunesmith lineage`: where a thing came from, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click
from rich.text import Text
from rich.tree import Tree

from tunesmith.cli.connection import connect
from tunesmith.cli.options import Globals, global_options, recipe_argument
from tunesmith.cli.render import Output, clean
from tunesmith_proto.trainer.v1 import models_pb2


@click.command("lineage")
@recipe_argument
@click.argument("subject")
@click.option("--max-rows", type=click.IntRange(1, 1000), default=20, show_default=True, help="Most source rows.")
@global_options()
@click.pass_obj
def lineage(options: Globals, recipe: str, subject: str, max_rows: int) -> None:
    """Trace where SUBJECT came from and what came of it.

    SUBJECT is the id of a model version, run, dataset, collection or record, or an answer's text.
    """
    out = Output(json=options.json)
    request = models_pb2.TraceLineageRequest(recipe=recipe, subject=subject, max_rows=max_rows)
    with connect(options) as connection:
        reply: models_pb2.TraceLineageResponse = connection.call(connection.models.TraceLineage, request)
    more = [f"more rows exist; --max-rows {min(1000, max_rows * 10)} shows more"] if reply.truncated else []
    out.result(reply, *trees(reply, subject), *more)


def trees(reply: models_pb2.TraceLineageResponse, subject: str) -> list[Tree]:
    """A tree from the subject; where it is no node (a text), from each node that nothing else came of."""
    nodes = {node.id: node for node in reply.nodes}
    sources: dict[str, list[str]] = {}
    products: dict[str, list[str]] = {}
    for edge in reply.edges:
        sources.setdefault(edge.from_id, []).append(edge.to_id)
        products.setdefault(edge.to_id, []).append(edge.from_id)
    roots = [subject] if subject in nodes else [node for node in nodes if node not in products]
    made = []
    for root in roots:
        tree = Tree(_label(nodes, root))
        both = bool(sources.get(root)) and bool(products.get(root))
        for title, links in (("came from", sources), ("became", products)):
            if links.get(root):
                branch = tree.add(Text(title, "dim")) if both or links is products else tree
                _grow(branch, nodes, links, root, {root})
        made.append(tree)
    return made


def _grow(
    tree: Tree,
    nodes: Mapping[str, models_pb2.LineageNode],
    links: Mapping[str, Sequence[str]],
    parent: str,
    drawn: set[str],
) -> None:
    """Add what `parent` is linked to. What has branches is drawn once and referred to later."""
    for child in links.get(parent, ()):
        label = _label(nodes, child)
        if child in drawn and links.get(child):
            tree.add(label.append(" (see above)", "dim"))
            continue
        drawn.add(child)
        _grow(tree.add(label), nodes, links, child, drawn)


def _label(nodes: Mapping[str, models_pb2.LineageNode], node_id: str) -> Text:
    node = nodes.get(node_id)
    if node is None:
        return Text(clean(node_id))
    label = Text.assemble((clean(node.kind), "bold"), " ", clean(node.id))
    if node.summary:
        label.append(f"  {clean(node.summary)}")
    for name, value in sorted(node.facts.items()):
        label.append(f"  {clean(name)}={clean(value)}", "dim")
    return label
