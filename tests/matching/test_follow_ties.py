"""``Tie``: one destination leaf fed by what feeds another; heads stored or not, tied or not."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import treeload
from treeload import Apply, LoadError, Pad, Policy, Rename, RuleError, Tie, Transpose

TABLE = np.arange(12, dtype=np.float32).reshape(4, 3)
HEAD = Tie("head/kernel", "embed/table", Transpose())


def untied() -> dict:
    return {"embed": {"table": jnp.zeros((4, 3))}, "head": {"kernel": jnp.zeros((3, 4))}}


def stored(head: np.ndarray | None = None) -> dict:
    return {"embed": {"table": TABLE}} | ({} if head is None else {"head": {"kernel": head}})


# Heads: stored or not, tied or untied in the destination.


def test_not_stored_and_untied_is_missing_without_a_rule() -> None:
    (finding,) = treeload.plan(untied(), stored()).errors
    assert (finding.kind, str(finding.name)) == ("missing", "head/kernel")


def test_not_stored_and_untied_loads_by_a_tie() -> None:
    plan = treeload.plan(untied(), stored(), rules=HEAD)
    entry = plan["head/kernel"]
    assert plan.ok and (entry.action, entry.rule, entry.ops) == ("tie", HEAD, (Transpose(),))
    assert [str(leaf) for leaf in entry.sources] == ["embed/table"]
    assert (plan.load()["head"]["kernel"] == TABLE.T).all()


def test_stored_and_untied_loads_as_it_is() -> None:
    loaded = treeload.load(untied(), stored(TABLE.T + 1))
    assert (loaded["head"]["kernel"] == TABLE.T + 1).all()


def test_stored_equal_agrees_with_a_tie_once_values_are_checked() -> None:
    plan = treeload.plan(untied(), stored(TABLE.T.copy()), rules=HEAD)
    assert [str(name) for name in plan.pending] == ["head/kernel"]
    assert plan["head/kernel"].needs_values
    assert plan.verify().ok and not plan.verify().pending


def test_stored_different_disagrees_with_a_tie() -> None:
    plan = treeload.plan(untied(), stored(TABLE.T + 1), rules=HEAD)
    (finding,) = plan.verify().errors
    assert (finding.kind, str(finding.name)) == ("tie", "head/kernel")
    with pytest.raises(LoadError, match="embed/table"):
        plan.load()


def test_the_verdict_first_takes_what_the_tie_says() -> None:
    loaded = treeload.load(untied(), stored(TABLE.T + 1), rules=HEAD, policy=Policy(tie="first"))
    assert (loaded["head"]["kernel"] == TABLE.T).all()


def test_stored_under_both_names_and_tied_in_the_destination_loads_once() -> None:
    shared = jnp.zeros((4, 3))
    loaded = treeload.load({"embed": shared, "head": shared}, {"embed": TABLE, "head": TABLE.copy()})
    assert loaded["embed"] is loaded["head"] and (loaded["embed"] == TABLE).all()


def test_stored_once_and_tied_in_the_destination_loads() -> None:
    shared = jnp.zeros((4, 3))
    for name in ("embed", "head"):
        loaded = treeload.load({"embed": shared, "head": shared}, {name: TABLE})
        assert loaded["embed"] is loaded["head"] and (loaded["head"] == TABLE).all()


def test_stored_unequal_and_tied_in_the_destination_is_a_tie() -> None:
    shared = jnp.zeros((4, 3))
    plan = treeload.plan({"embed": shared, "head": shared}, {"embed": TABLE, "head": TABLE + 1}).verify()
    assert [finding.kind for finding in plan.errors] == ["tie"]


# The rule itself.


def test_ties_are_transitive_and_their_ops_add_up() -> None:
    dst = {"a": jnp.zeros((4, 3)), "b": jnp.zeros((3, 4)), "c": jnp.zeros((4, 3))}
    rules = [Tie("c", "b", Transpose()), Tie("b", "a", Transpose())]
    loaded = treeload.load(dst, {"a": TABLE}, rules=rules)
    assert (loaded["b"] == TABLE.T).all() and (loaded["c"] == TABLE).all()


def test_ties_in_a_circle_are_a_rule_error() -> None:
    with pytest.raises(RuleError, match="circle"):
        treeload.plan(untied(), {}, rules=[HEAD, Tie("embed/table", "head/kernel", Transpose())])


def test_a_tie_follows_a_renamed_leaf() -> None:
    rules = [HEAD, Rename("wte", "embed/table")]
    loaded = treeload.load(untied(), {"wte": TABLE}, rules=rules)
    assert (loaded["head"]["kernel"] == TABLE.T).all()


def test_captures_tie_leaf_by_leaf() -> None:
    dst = {"enc": {str(i): jnp.zeros(2) for i in range(3)}, "dec": {str(i): jnp.zeros(2) for i in range(3)}}
    src = {"enc": {str(i): np.full(2, i, np.float32) for i in range(3)}}
    loaded = treeload.load(dst, src, rules=Tie("dec/{i}", "enc/{i}"))
    assert [float(loaded["dec"][str(i)][0]) for i in range(3)] == [0, 1, 2]


def test_a_tie_that_matches_no_leaf_of_the_destination_is_a_finding() -> None:
    (finding,) = treeload.plan(untied(), stored(TABLE.T), rules=Tie("haed/kernel", "embed/table")).errors
    assert finding.kind == "rule" and "haed/kernel" in finding.message


def test_a_tie_to_what_nothing_feeds_leaves_both_missing() -> None:
    plan = treeload.plan(untied(), {}, rules=HEAD)
    assert {str(finding.name) for finding in plan.errors} == {"embed/table", "head/kernel"}
    assert {finding.kind for finding in plan.errors} == {"missing"}


def test_a_tie_of_the_wrong_shape_is_a_shape_finding() -> None:
    (finding,) = treeload.plan(untied(), stored(), rules=Tie("head/kernel", "embed/table")).errors
    assert (finding.kind, str(finding.name)) == ("shape", "head/kernel")


def test_an_op_that_does_not_fit_is_a_rule_finding() -> None:
    (finding,) = treeload.plan(
        untied(), stored(), rules=Tie("head/kernel", "embed/table", Transpose(0, 1, 2))
    ).errors
    assert (finding.kind, str(finding.name)) == ("rule", "head/kernel")


def test_numpy_leaves_that_are_tied_by_a_rule_are_two_arrays() -> None:
    dst = {"a": np.zeros((4, 3), np.float32), "b": np.zeros((4, 3), np.float32)}
    loaded = treeload.load(dst, {"a": TABLE}, rules=Tie("b", "a"))
    loaded["a"][0] = 99
    assert (loaded["b"] == TABLE).all() and TABLE[0, 0] == 0


def test_an_nnx_head_is_updated_by_a_tie() -> None:
    class Model(nnx.Module):
        def __init__(self) -> None:
            self.embed = nnx.Embed(4, 3, rngs=nnx.Rngs(0))
            self.head = nnx.Linear(3, 4, use_bias=False, rngs=nnx.Rngs(1))

    model = Model()
    rule = Tie("head/kernel", "embed/embedding", Transpose())
    treeload.update(model, {"embed": {"embedding": TABLE}}, rules=rule)
    assert (model.head.kernel[...] == TABLE.T).all()


def test_a_missing_leaf_is_computed_from_others_that_load_themselves() -> None:
    dst = {"a": jnp.zeros(2), "b": jnp.zeros(2), "sum": jnp.zeros(2)}
    src = {"a": np.ones(2, np.float32), "b": np.full(2, 2, np.float32)}
    plan = treeload.plan(dst, src, rules=Tie("sum", ["a", "b"], Apply(lambda a, b: a + b)))
    assert plan.ok and [str(leaf) for leaf in plan["sum"].sources] == ["a", "b"]
    assert (plan.load()["sum"] == 3).all()


def test_what_only_feeds_a_tie_is_not_unexpected() -> None:
    dst = {"sum": jnp.zeros(2)}
    src = {"a": np.ones(2, np.float32), "b": np.full(2, 2, np.float32)}
    rule = Tie("sum", ["a", "b"], Apply(lambda a, b: a + b))
    assert (treeload.load(dst, src, rules=rule)["sum"] == 3).all()
    (finding,) = treeload.plan(dst, {**src, "c": np.ones(2)}, rules=rule).errors
    assert (finding.kind, str(finding.name)) == ("unexpected", "c")


def test_several_leaves_need_a_function_of_several_arrays() -> None:
    with pytest.raises(RuleError, match="Apply"):
        Tie("sum", ["a", "b"])
    (finding,) = treeload.plan(
        {"sum": jnp.zeros(2)},
        {"a": np.ones(2), "b": np.ones(2)},
        rules=Tie("sum", ["a", "b"], Apply(jnp.sum)),
    ).errors
    assert (finding.kind, str(finding.name)) == ("rule", "sum")


@pytest.mark.parametrize("ops", [(), (Transpose(), Transpose())])
def test_what_is_filled_up_with_a_leafs_own_rows_is_not_passed_on(ops: tuple) -> None:
    dst = {"embed": jnp.zeros((6, 3)), "head": jnp.ones((6, 3))}
    rules = [Rename("embed", "embed", Pad(6, fill="destination")), Tie("head", "embed", *ops)]
    (finding,) = treeload.plan(dst, {"embed": TABLE}, rules=rules).errors
    assert (finding.kind, str(finding.name)) == ("rule", "head")
    assert finding.message == (
        "Pad(6, fill='destination') fills up with what the destination has there, which a tie cannot "
        "pass on: give the tied leaf a rule of its own, such as Copy"
    )
    filled = [Rename("embed", "embed", Pad(6)), Tie("head", "embed", *ops)]
    assert treeload.load(dst, {"embed": TABLE}, rules=filled)["head"][4:].tolist() == [[0, 0, 0]] * 2
