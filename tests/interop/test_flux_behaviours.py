"""Every behaviour that Flux.jl's own tests of ``loadmodel!`` and ``state`` assert, in JAX terms.

One thing is different on purpose: where Flux drops a bias that is not zero because the destination has
none, that is an error here.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import treeload
from treeload import BIAS, LoadError, Policy, Rename

ZERO = Policy(absent_is_zero=BIAS)


def seed(number):
    return nnx.Rngs(number)


def dense(nin, nout, number, *, use_bias=True):
    layer = nnx.Linear(nin, nout, use_bias=use_bias, rngs=seed(number))
    if use_bias:
        assert layer.bias is not None
        layer.bias[...] = jnp.full(nout, float(number))
    return layer


def chain(*layers):
    return nnx.Sequential(*layers)


def equal(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, treeload.state(a), treeload.state(b)))


class Parallel(nnx.Module):
    def __init__(self, *branches):
        self.branches = nnx.List(branches)


def test_parameters_copy_over():
    dst, src = chain(dense(10, 5, 0), dense(5, 2, 0)), chain(dense(10, 5, 1), dense(5, 2, 1))
    treeload.update(dst, src)
    assert equal(dst, src)
    assert dst.layers[0].kernel[...] is not None and dst.layers[0].kernel is not src.layers[0].kernel


def test_activation_functions_are_untouched():
    dst, src = {"d": np.zeros(2), "act": jax.nn.relu}, {"d": np.ones(2), "act": jax.nn.gelu}
    loaded = treeload.load(dst, src)
    assert loaded["act"] is jax.nn.relu and loaded["d"].tolist() == [1, 1]
    model = treeload.load(chain(dense(2, 2, 0), nnx.relu), chain(dense(2, 2, 1), nnx.gelu))
    assert model.layers[1] is nnx.relu


def test_nested_structures_load_and_an_absent_bias_is_not_overwritten():
    dst = chain(dense(10, 5, 0), Parallel(dense(5, 2, 0, use_bias=False), dense(5, 2, 0)))
    src = chain(dense(10, 5, 1), Parallel(dense(5, 2, 0), dense(5, 2, 1)))
    treeload.update(dst, src, policy=ZERO)
    assert dst.layers[1].branches[0].bias is None
    for of, to in ((src, dst),):
        assert np.array_equal(of.layers[1].branches[0].kernel[...], to.layers[1].branches[0].kernel[...])
        assert np.array_equal(of.layers[1].branches[1].bias[...], to.layers[1].branches[1].bias[...])


@pytest.mark.parametrize(
    ("src", "kinds"),
    [
        (lambda: chain(nnx.Conv(3, 16, (3, 3), rngs=seed(1)), dense(5, 2, 1)), {"shape"}),
        (lambda: chain(dense(10, 5, 1), Parallel(dense(5, 2, 1), dense(5, 2, 1))), {"missing", "unexpected"}),
        (lambda: chain(dense(10, 6, 1), dense(6, 2, 1)), {"shape"}),
        (lambda: chain(dense(10, 5, 1)), {"missing"}),
        (lambda: chain(dense(10, 5, 1), dense(5, 2, 1), dense(2, 2, 1)), {"unexpected"}),
    ],
)
def test_mismatched_nodes_and_sizes_are_errors_and_nothing_is_written(src, kinds):
    dst = chain(dense(10, 5, 0), dense(5, 2, 0))
    before = jax.tree.map(jnp.copy, nnx.state(dst))
    with pytest.raises(LoadError) as caught:
        treeload.update(dst, src())
    assert {finding.kind for finding in caught.value.findings} == kinds
    assert jax.tree.all(jax.tree.map(np.array_equal, before, nnx.state(dst)))


class Net(nnx.Module):
    def __init__(self, number, rate, pool):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=seed(number))
        self.norm = nnx.BatchNorm(4, rngs=seed(number))
        self.dropout = nnx.Dropout(rate, rngs=seed(number))
        self.pool = pool
        self.flatten = jnp.ravel if rate == 0.2 else jnp.squeeze


def test_statistics_are_copied_and_rates_functions_windows_and_modes_are_not():
    dst, src = Net(0, 0.2, (2, 2)), Net(1, 0.1, (3, 3))
    src.norm.mean[...] = jnp.full(4, 5.0)
    src.norm.var[...] = jnp.full(4, 2.0)
    src.eval()
    treeload.update(dst, src)
    assert dst.norm.mean[0] == 5 and dst.norm.var[0] == 2
    assert np.array_equal(dst.conv.kernel[...], src.conv.kernel[...])
    assert (dst.dropout.rate, dst.pool, dst.flatten) == (0.2, (2, 2), jnp.ravel)
    assert not dst.dropout.deterministic and not dst.norm.use_running_average


def test_a_tuple_of_layers_matches_a_list_of_layers():
    layers = [{"w": np.ones(2), "rate": 0.5}, {"w": np.full(2, 2.0), "rate": 0.5}]
    dst = tuple({"w": np.zeros(2), "rate": 0.5} for _ in layers)
    loaded = treeload.load(dst, layers)
    assert type(loaded) is tuple and [layer["w"][0] for layer in loaded] == [1, 2]


def test_a_part_of_a_model_loads_from_a_part():
    dst, src = Net(0, 0.2, (2, 2)), Net(1, 0.2, (2, 2))
    src.norm.mean[...] = jnp.full(4, 3.0)
    kernel = jnp.copy(dst.conv.kernel[...])
    treeload.update(dst.norm, src.norm)
    assert dst.norm.mean[0] == 3 and np.array_equal(dst.conv.kernel[...], kernel)


class Tied(nnx.Module):
    def __init__(self, number, *, shared=True):
        self.first = dense(10, 10, number)
        self.second = dense(10, 10, number + 1, use_bias=False)
        if shared:
            self.second.kernel = self.first.kernel


def test_matching_shared_weights_load_and_stay_shared():
    dst, src = Tied(0), Tied(2)
    treeload.update(dst, src)
    assert dst.first.kernel is dst.second.kernel
    assert np.array_equal(dst.second.kernel[...], src.second.kernel[...])


def test_mismatched_weights_for_shared_ones_are_an_error():
    with pytest.raises(LoadError, match="tie"):
        treeload.update(Tied(0), Tied(2, shared=False))


def shared_bias(value):
    bias = np.full(5, value, np.float32)
    return {"a": {"bias": bias}, "b": {"bias": bias}}


def test_a_tied_parameter_that_is_absent_once_must_be_zero():
    src: dict[str, dict[str, Any]] = {"a": {"bias": np.zeros(5, np.float32)}, "b": {"bias": False}}
    loaded = treeload.load(shared_bias(7), src, policy=ZERO)
    assert loaded["a"]["bias"] is loaded["b"]["bias"] and not loaded["a"]["bias"].any()
    src["a"]["bias"] += 1
    with pytest.raises(LoadError, match="tie"):
        treeload.load(shared_bias(7), src, policy=ZERO)


def test_a_layer_without_parameters_on_either_side_is_skipped_by_scope_and_names():
    plain = chain(dense(10, 5, 0), dense(5, 2, 0))
    dropped = chain(dense(10, 5, 1), nnx.Dropout(0.2, rngs=seed(1)), dense(5, 2, 1))
    wider = treeload.load(
        plain,
        dropped,
        rules=[Rename("layers/2/{*rest}", "layers/1/{*rest}"), Rename("layers/1/{*rest}", "dropout/{*rest}")],
        policy=Policy(unexpected={"dropout/**": "ignore"}),
    )
    assert np.array_equal(wider.layers[1].kernel[...], dropped.layers[2].kernel[...])
    back = treeload.load(dropped, plain, rules=Rename("layers/1/{*rest}", "layers/2/{*rest}"))
    assert np.array_equal(back.layers[2].kernel[...], plain.layers[1].kernel[...])
    assert back.layers[1].rate == 0.2
    only = treeload.load(plain, chain(dense(10, 5, 2), dense(3, 3, 2)), scope="layers/0/**")
    assert only.layers[0].bias[0] == 2 and only.layers[1].bias[0] == 0


def test_a_bias_loads_is_zeroed_where_the_source_has_none_and_is_never_dropped():
    dst = chain(dense(2, 3, 4), dense(3, 1, 4))
    treeload.update(dst, chain(dense(2, 3, 7), dense(3, 1, 7)))
    assert dst.layers[0].bias[...].tolist() == [7, 7, 7]
    none = chain(dense(2, 3, 9, use_bias=False), dense(3, 1, 9))
    treeload.update(dst, none, policy=ZERO)
    assert dst.layers[0].bias[...].tolist() == [0, 0, 0]
    assert np.array_equal(dst.layers[0].kernel[...], none.layers[0].kernel[...])
    kernel = jnp.copy(none.layers[0].kernel[...])
    with pytest.raises(LoadError, match="absent"):  # Flux loads this, and the bias is gone
        treeload.update(none, chain(dense(2, 3, 7), dense(3, 1, 7)), policy=ZERO)
    assert np.array_equal(none.layers[0].kernel[...], kernel), "Flux has written what came before its errors"


def test_a_model_loads_from_a_file(tmp_path):
    dst, src = chain(dense(2, 3, 0), dense(3, 1, 0)), chain(dense(2, 3, 1), dense(3, 1, 1))
    treeload.save(tmp_path / "model", src)
    treeload.update(dst, tmp_path / "model")
    assert equal(dst, src)


# ``state``.


def test_the_state_of_a_model_holds_its_arrays_themselves_and_loads_into_another():
    src = chain(dense(10, 5, 1), Parallel(dense(5, 2, 1, use_bias=False), dense(5, 2, 1)))
    state = treeload.state(src)
    assert set(state) == {"layers"} and set(state["layers"]) == {"0", "1"}
    assert state["layers"]["0"]["kernel"] is src.layers[0].kernel[...]
    dst = chain(dense(10, 5, 0), Parallel(dense(5, 2, 0), dense(5, 2, 0)))
    treeload.update(dst, state, policy=ZERO)
    assert not dst.layers[1].branches[0].bias[...].any()
    assert np.array_equal(dst.layers[1].branches[0].kernel[...], src.layers[1].branches[0].kernel[...])


def test_what_is_no_state_is_left_out():
    x, y = np.ones((3, 2)), np.zeros((2, 2))
    tree = {"a": 1, "b": {"c": x, "d": (y, 1, (jnp.tanh,)), "e": jnp.sin}, "s": "hello", "n": None}
    state = treeload.state(tree)
    assert state == {"a": 1, "b": {"c": state["b"]["c"], "d": {"0": state["b"]["d"]["0"], "1": 1}}}
    assert state["b"]["c"] is x and state["b"]["d"]["0"] is y


def test_numbers_of_all_kinds_keep_their_types():
    tree: dict[str, Any] = {"i": 1, "c": 1.2 + 2j, "x": np.array([1, 2, 3]), "t": (1, 2.5, 3), "b": True}
    loaded = treeload.load(
        {"i": 0, "c": 0j, "x": np.zeros(3, int), "t": (0, 0.0, 0), "b": False}, treeload.state(tree)
    )
    assert loaded["t"] == (1, 2.5, 3) and loaded["b"] is True and loaded["c"] == 1.2 + 2j
    assert type(loaded["i"]) is int and loaded["x"].dtype == tree["x"].dtype
