"""A source as an outline: a line a node with what lies below it in sum, a line a leaf with its spec.

Owns the tree that ``treeload inspect`` prints: what is folded, and in which order siblings come. Leaves and
nodes that are alike but for numbers are one line, as everywhere. Refuses to own what is said of the source
as a whole (``inventory``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from treeload._leaves.spec import elements, in_bytes, nbytes, print_spec
from treeload._naming.name import Name
from treeload._reports.groups import group, print_names
from treeload._reports.inventory import Inventory
from treeload._reports.page import MARGIN, counted, printable

_INDENT = "  "


class Said(Protocol):
    """What is said of the values of leaves, which can be taken together."""

    def __add__(self, other: Any) -> Any: ...


@dataclass
class _Node:
    """A key of the outline, or a leaf; leaves that are alike are one."""

    key: str
    children: dict[str, _Node] = field(default_factory=dict)
    leaves: int = 0
    size: int = 0
    elements: int = 0
    spec: str = ""
    tied: str = ""
    values: Any = None

    def add(self, below: _Node) -> None:
        self.leaves += below.leaves
        self.size += below.size
        self.elements += below.elements


SORTS: Mapping[str, Callable[[_Node], Any]] = {
    "file": lambda node: 0,
    "bytes": lambda node: -node.size,
    "name": lambda node: node.key,
}
"""The orders in which siblings may come: what they are sorted by."""


def outline(
    found: Inventory,
    *,
    depth: int | None = None,
    sort: str = "file",
    stats: Mapping[Name, Said] | None = None,
) -> str:
    """The outline of a source below what is said of it as a whole.

    Args:
        found: the source.
        depth: how many keys deep leaves are shown; what is deeper is folded into its node. None for all.
        sort: a key of ``SORTS``.
        stats: what is known of the values of leaves, by name.
    """
    root = _tree(found, stats or {})
    lines = list(_lines(root, "", depth, SORTS[sort]))
    width = max((len(head) for head, _, _ in lines), default=0)
    size_width = max((len(size) for _, size, _ in lines), default=0)
    body = [f"{head:<{width}}  {size:>{size_width}}  {tail}".rstrip() for head, size, tail in lines]
    return "\n".join(part for part in (found.head(), "\n".join(body), found.rest()) if part)


def _tree(found: Inventory, stats: Mapping[Name, Said]) -> _Node:
    root = _Node("")
    facts = [(leaf.name, (print_spec(leaf.spec), leaf.name in found.ties)) for leaf in found.leaves]
    for one in group(facts):
        leaves = [found.leaves[member] for member in one.members]
        tied = [found.ties[leaf.name] for leaf in leaves if leaf.name in found.ties]
        stored = leaves if not tied else []
        values = [stats[leaf.name] for leaf in leaves if leaf.name in stats]
        made = _Node(
            one.title.rpartition("/")[2] if one.segments else "the root", leaves=len(leaves),
            size=sum(nbytes(leaf.spec) for leaf in stored),
            elements=sum(elements(leaf.spec) for leaf in stored),
            spec=print_spec(leaves[0].spec), tied=print_names(tied, most=3),
            values=sum(values[1:], values[0]) if values else None,
        )  # fmt: skip
        node = root
        root.add(made)
        for key in one.keys[:-1]:
            node = node.children.setdefault(key, _Node(key))
            node.add(made)
        node.children[f"{one.keys[-1] if one.keys else ''}\0{made.spec}{made.tied}"] = made
    return root


def _lines(
    node: _Node, indent: str, depth: int | None, order: Callable[[_Node], Any]
) -> Iterator[tuple[str, str, str]]:
    """Name, size and the rest of each line."""
    for child in sorted(node.children.values(), key=order):
        head = f"{MARGIN}{indent}{printable(child.key)}"
        if child.spec:
            said = [f"tied with {child.tied}"] if child.tied else []
            said += [str(child.values)] if child.values is not None else []
            yield f"{head}  {child.spec}", "" if child.tied else in_bytes(child.size), ", ".join(said)
        else:
            yield f"{head}/", in_bytes(child.size), counted(child.leaves, "leaf", "leaves")
            if depth is None or len(indent) // len(_INDENT) + 1 < depth:
                yield from _lines(child, indent + _INDENT, depth, order)
