"""What a report says first of a source that is of another size, or that lacks what may be tied."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import pytest

import treeload


def scanned(layers: int) -> dict[str, Any]:
    return {
        "layers": {"kernel": jnp.ones((layers, 4, 5)), "bias": jnp.ones((layers, 5))}, "norm": jnp.ones(3),
    }  # fmt: skip


def wide(width: int) -> dict[str, Any]:
    blocks = [{"fc": {"kernel": jnp.ones((width, 2 * width)), "bias": jnp.ones(2 * width)}} for _ in range(3)]
    head = {"kernel": jnp.ones((width, 7)), "bias": jnp.ones(7)}
    return {"blocks": blocks, "norm": jnp.ones(width), "head": head}


def counted(first: int) -> dict[str, Any]:
    return {f"h_{at}": {"w": jnp.full((2, 2), at), "b": jnp.full(2, at)} for at in range(first, first + 3)}


@pytest.mark.parametrize(
    ("destination", "source", "first"),
    [
        (scanned(16), scanned(12), "the source is scanned over 12 layers, the destination over 16; to load"),
        (wide(32), wide(16), "every size 16 is 32, every 32 is 64: twice as wide"),
        (counted(0), counted(1), "the source counts h from 1 to 3, the destination from 0 to 2"),
    ],
)
def test_what_differs_as_a_whole_comes_first_and_no_policy_forgives_it(
    destination: Any, source: Any, first: str
) -> None:
    text = str(treeload.plan(destination, source))
    assert f"to go on\n  {first}" in text
    assert "Policy(" not in text
    assert ("next to nothing" in text) == ("h_0" not in destination)


def test_one_leaf_of_another_size_is_no_other_model() -> None:
    destination, source = ({"embed": jnp.ones((rows, 99)), "norm": jnp.ones(3)} for rows in (20, 10))
    text = str(treeload.plan(destination, source))
    assert "no policy is offered" not in text and 'Policy(shape={"embed": "keep"})' in text


def test_many_that_are_missing_are_no_other_model() -> None:
    new = {f"new_{at}": jnp.ones((99, 9)) for at in range(9)}
    text = str(treeload.plan({"norm": jnp.ones(3), **new}, {"norm": jnp.ones(3)}))
    assert "no policy is offered" not in text


def test_a_head_that_may_be_tied_is_said_with_the_rule() -> None:
    source = {"embed": jnp.arange(10.0).reshape(5, 2)}
    destination = {"embed": jnp.zeros((5, 2)), "lm_head": {"kernel": jnp.zeros((2, 5))}}
    plan = treeload.plan(destination, source)
    assert "if lm_head/kernel is tied to the embedding: Tie('lm_head/kernel', 'embed'," in str(plan)
    (said,) = plan.suggest().possible
    rule = eval(said[said.index("Tie(") :], {"Tie": treeload.Tie, "Transpose": treeload.Transpose})
    loaded = treeload.load(destination, source, rules=[rule])
    assert (loaded["lm_head"]["kernel"] == source["embed"].T).all()
