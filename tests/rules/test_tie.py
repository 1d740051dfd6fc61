"""``Tie`` as a rule: it takes nothing of the source, and has nothing to turn round."""

from __future__ import annotations

from treeload import Apply, Tie, Transpose


def test_a_tie_takes_no_leaf_of_the_source_and_gives_none() -> None:
    tie = Tie("head/kernel", "embed/table", Transpose())
    assert tie.patterns == () and list(tie.give(())) == [] and tie.inverse() is None


def test_a_tie_belongs_where_its_destination_is_written() -> None:
    assert Tie("l/{i}/head", "l/{i}/embed").destination_text() == "l/{i}/head"


def test_the_targets_of_a_tie_are_written_with_its_captures() -> None:
    tie = Tie("l/{i}/head", "l/{i}/embed")
    assert tie.targets(("l", "3", "head")) == (("l", "3", "embed"),) and tie.targets(("l", "3", "x")) == ()
    several = Tie("l/{i}/sum", ["l/{i}/a", "b"], Apply(lambda a, b: a + b))
    assert several.targets(("l", "3", "sum")) == (("l", "3", "a"), ("b",))
