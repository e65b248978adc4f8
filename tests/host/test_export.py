"""Models as files for other programs: what is read back is what was written, or a sentence."""

import io
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stores import same

from fedjax_sim.core.errors import FedError
from fedjax_sim.core.types import Variables
from fedjax_sim.models import REGISTRY, Model, from_linen, mixed_precision
from fedjax_sim.persistence import export, weights
from fedjax_sim.persistence.manifest import state_hash

OF_WEIGHTS = sorted(export.WEIGHTS)
DTYPES = (
    "float32",
    "bfloat16",
    "float16",
    "float8_e4m3fn",
    "float8_e5m2",
    "int8",
    "uint8",
    "int32",
    "uint32",
    "bool",
    "complex64",
)


def variables() -> Variables:
    """Leaves of many dtypes and shapes, NaN and negative zero among them."""
    rng = np.random.default_rng(0)
    params = {
        name: jnp.asarray(rng.normal(size=(3, 2)).astype(np.float32)).astype(name)
        for name in DTYPES
    }
    odd = {
        "nan": jnp.array([np.nan, -0.0, np.inf], jnp.bfloat16),
        "scalar": jnp.float32(3),
        "none": jnp.zeros((0, 4)),
    }
    return Variables(
        {**params, "linear/~/w": jnp.ones((2, 2)).T, "odd": odd}, {"count": jnp.int32(7)}
    )


def like() -> Variables:
    return jax.eval_shape(variables)


# ---------------------------------------------------------------------------------- lists and bytes


def test_weights_go_there_and_back_to_the_bit():
    made = variables()
    for back in (
        weights.from_named(like(), weights.to_named(made)),
        weights.from_arrays(like(), weights.to_arrays(made)),
        weights.from_bytes(like(), weights.to_bytes(made)),
        weights.from_bytes(made, weights.to_bytes(made, {"said": "much"})),
    ):
        assert same(back, made)


def test_a_list_is_in_the_order_of_the_tree_and_the_caller_s_own():
    made = Variables(
        {"b": np.arange(2.0), "a": {"c": np.ones((1, 2), np.float32)}}, {"n": np.int32(1)}
    )
    arrays = weights.to_arrays(made)
    assert [array.tolist() for array in arrays] == [[[1.0, 1.0]], [0.0, 1.0], 1]
    assert list(weights.to_named(made)) == ["params.a.c", "params.b", "state.n"]
    back = weights.from_arrays(made, arrays)
    arrays[1][:] = 5
    assert made.params["b"].tolist() == back.params["b"].tolist() == [0.0, 1.0]


def test_typed_keys_are_their_words():
    made = Variables(
        {"w": jnp.ones(2)},
        {"key": jax.random.key(3), "many": jax.random.split(jax.random.key(1), 2)},
    )
    back = weights.from_bytes(jax.eval_shape(lambda: made), weights.to_bytes(made))
    assert state_hash(back) == state_hash(made)
    assert jax.random.bits(back.state["key"]) == jax.random.bits(made.state["key"])


def test_floats_that_numpy_files_do_not_know_may_come_as_bare_bytes():
    """As they do from a list that was sent with ``numpy.save``, Flower's way."""
    made = Variables({"a": jnp.array([1.5, np.nan, -0.0], jnp.bfloat16), "b": jnp.ones(3)})
    arrays = []
    for array in weights.to_arrays(made):
        file = io.BytesIO()
        np.save(file, array, allow_pickle=False)
        arrays.append(np.load(io.BytesIO(file.getvalue()), allow_pickle=False))
    assert [array.dtype.str for array in arrays] == ["|V2", "<f4"]
    assert same(weights.from_arrays(made, arrays), made)
    with pytest.raises(FedError, match=r"params.b: got \|V4\[3\], expected float32\[3\]"):
        weights.from_arrays(made, [arrays[0], np.zeros(3, "V4")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda named: named.pop("params.int8"),
            r"at params.int8: got nothing, expected int8\[3, 2\]; give",
        ),
        (
            lambda named: named.update(more=np.zeros(2)),
            r"at more: got float64\[2\], expected nothing; give",
        ),
        (
            lambda named: named.update({"params.odd.scalar": np.zeros(1, np.float32)}),
            r"scalar: got float32\[1\], expected float32\[\]",
        ),
        (
            lambda named: named.update({"state.count": np.int64(7)}),
            r"at state.count: got int64\[\], expected int32\[\]; give",
        ),
        (
            lambda named: named.update({"params.bfloat16": named["params.float16"]}),
            r"got float16\[3, 2\], expected bfloat16\[3, 2\]; give",
        ),
        (
            lambda named: named.update({"params.bool": [[True]]}),
            r"at params.bool: got list, expected bool\[3, 2\]; give",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_leaf(change, message):
    named = weights.to_named(variables())
    change(named)
    with pytest.raises(FedError, match=message):
        weights.from_named(like(), named)


def test_a_list_of_another_length_is_refused():
    with pytest.raises(
        FedError, match="the model has 16 leaves: got 3 arrays; give one array for each"
    ):
        weights.from_arrays(like(), weights.to_arrays(variables())[:3])


def survives(read, content: bytes) -> None:
    """Checks that damaged bytes read as the weights, or raise a FedError."""
    try:
        back = read(content)
    except FedError as error:
        text = str(error)
    else:
        assert same(back, variables())
        return
    assert re.search(r": got .+; .+", text, re.DOTALL), text


def damaged(content: bytes, count: int = 120) -> list[bytes]:
    rng = np.random.default_rng(0)
    places = rng.integers(len(content), size=count)
    flipped = [
        content[:at] + bytes([content[at] ^ (1 << int(rng.integers(8)))]) + content[at + 1 :]
        for at in places
    ]
    return (
        [content[:at] for at in (0, 1, 7, 8, 9, len(content) // 2, len(content) - 1)]
        + [content + b"x"]
        + flipped
    )


def test_damaged_bytes_never_become_other_weights():
    for content in damaged(weights.to_bytes(variables()), 300):
        survives(lambda content: weights.from_bytes(like(), content), content)


# -------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("form", OF_WEIGHTS)
def test_files_of_weights_hold_the_bits_and_the_card(form: str, tmp_path: Path):
    path = export.save_weights(
        tmp_path / "new" / "m", variables(), {"rounds": 3, "said": "é"}, form
    )
    assert same(export.load_weights(path, like()), variables())
    card = export.read_card(path)
    assert (card["rounds"], card["said"]) == (3, "é")
    assert card["weights_hash"] == state_hash(variables())
    assert [each.name for each in path.parent.iterdir()] == ["m"]


def test_files_are_what_their_libraries_read(tmp_path: Path):
    from safetensors import safe_open

    made = Variables({"dense": {"kernel": jnp.arange(6.0).reshape(3, 2)}})
    export.save_weights(tmp_path / "m.safetensors", made, {"rounds": 3})
    with safe_open(tmp_path / "m.safetensors", "np") as file:
        assert (
            file.get_tensor("params.dense.kernel").tolist()
            == made.params["dense"]["kernel"].tolist()
        )
        assert json.loads(file.metadata()["card"])["rounds"] == 3
    with np.load(export.save_weights(tmp_path / "m.npz", made, form="npz")) as archive:
        assert archive["params.dense.kernel"].tolist() == made.params["dense"]["kernel"].tolist()


@pytest.mark.parametrize("form", OF_WEIGHTS)
def test_a_damaged_file_is_told_and_never_other_weights(form: str, tmp_path: Path):
    path = export.save_weights(tmp_path / "m", variables(), {"rounds": 3}, form)

    def read(content: bytes) -> Variables:
        path.write_bytes(content)
        return export.load_weights(path, like())

    for content in damaged(path.read_bytes()):
        survives(read, content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        b"rounds = 3",
        b"\x80\x04K\x01.",
        b"\xff" * 100,
        b"{" * 100,
        b"\x00" * 8 + b"{}",
    ],
)
def test_another_file_is_told(content: bytes, tmp_path: Path):
    path = tmp_path / "m"
    path.write_bytes(content)
    for read in (
        lambda: export.load_weights(path, like()),
        lambda: export.load_program(path),
        lambda: export.read_card(path),
    ):
        with pytest.raises(FedError, match=r"; .+"):
            read()


def test_objects_in_an_archive_are_not_brought_to_life(tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("brought to life",)

    card = np.array(json.dumps({"card": {}, "dtypes": {"params": "object"}}))
    np.savez(tmp_path / "m", params=np.array([Trap()], object), card=card)
    with pytest.raises(FedError, match="not an exported model, or it is damaged"):
        export.load_weights(tmp_path / "m.npz", like())


@pytest.mark.parametrize("form", OF_WEIGHTS)
def test_a_file_that_is_there_stays(form: str, tmp_path: Path):
    path = tmp_path / "m"
    path.write_text("mine")
    with pytest.raises(FedError, match=r"there is a file already: got .*; replace it with --force"):
        export.save_weights(path, variables(), form=form)
    assert path.read_text() == "mine"
    export.save_weights(path, variables(), form=form, force=True)
    assert same(export.load_weights(path, like()), variables())
    with pytest.raises(FedError, match="an exported model is a file"):
        export.save_weights(tmp_path, variables(), form=form, force=True)
    with pytest.raises(FedError, match="could not be written: got"):
        export.save_weights(path / "below", variables(), form=form)


def test_what_a_format_cannot_hold_is_told(tmp_path: Path):
    with pytest.raises(FedError, match=r"safetensors cannot hold this model: got .*complex128"):
        export.save_weights(tmp_path / "m", Variables({"w": np.ones(2, complex)}))
    with pytest.raises(FedError, match="unknown format of weights: got 'npy'"):
        export.save_weights(tmp_path / "m", variables(), form="npy")
    with pytest.raises(FedError, match="not an exported model, or it is damaged: got No such file"):
        export.load_weights(tmp_path / "m", like())
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------------------------- programs

EXAMPLES = {
    "cnn": ((12, 12, 1), "uint8"),
    "emnist_cnn": ((28, 28, 1), "uint8"),
    "resnet": ((8, 8, 3), "float32"),
    "char_lstm": ((6,), "int32"),
    "transformer": ((6,), "int32"),
    "series_cnn": ((32, 2), "float32"),
    "word_mean": ((6,), "int32"),
}
SMALLER = {
    "resnet": {"stages": (1, 1), "width": 8},
    "char_lstm": {"width": 8, "layers": 1},
    "transformer": {"width": 8, "layers": 1, "heads": 2},
}


@pytest.mark.parametrize("name", [*REGISTRY, "mlp in bfloat16"])
def test_every_model_of_the_zoo_is_a_program_for_any_number_of_examples(name: str, tmp_path: Path):
    name, _, compute = name.partition(" in ")
    model = mixed_precision(REGISTRY[name](5, **SMALLER.get(name, {})), compute or "float32")
    shape, dtype = EXAMPLES.get(name, ((8, 8, 1), "float32"))
    x = np.random.default_rng(0).integers(0, 9, size=(7, *shape)).astype(dtype)
    held = Variables(*model.init(jax.random.key(0), x[:1]))
    path = export.save_program(tmp_path / "m", model, held, x[:2], {"rounds": 3})
    predicted = export.load_program(path)(x)
    wanted = jax.jit(lambda x: model.apply(held.params, held.state, x, train=False, key=None)[0])(x)
    np.testing.assert_allclose(predicted, wanted, rtol=1e-5, atol=1e-5)
    assert export.read_card(path)["weights_hash"] == state_hash(held)
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    assert (program.platforms, str(program.in_avals[0].shape[0])) == (export.PLATFORMS, "n")


def curious() -> Model:
    """A model that looks at the number of examples, and has two inputs."""

    def apply(params, state, x, *, train, key):
        out = x["a"] @ params + x["b"]
        return (out * 1.0 if out.shape[0] > 3 else out + 0.0), state

    return Model(lambda key, x: (jnp.ones((2, 3)), ()), apply)


def test_a_model_that_looks_at_the_number_of_examples_is_a_program_too(tmp_path: Path):
    x = {"a": np.arange(8.0, dtype=np.float32).reshape(4, 2), "b": np.ones((4, 1), np.int64)}
    predict = export.load_program(
        export.save_program(tmp_path / "m", curious(), Variables(jnp.ones((2, 3))), x)
    )
    assert predict(x).shape == (4, 3)
    np.testing.assert_array_equal(jax.jit(predict)(x), x["a"] @ np.ones((2, 3)) + 1)


def test_a_program_has_its_batch_statistics_and_draws_nothing(tmp_path: Path):
    import flax.linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train: bool = False):
            x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
            return nn.Dropout(0.5, deterministic=not train)(x)

    x, model = jnp.arange(12.0).reshape(4, 3), from_linen(Net())
    params, state = model.init(jax.random.key(0), x)
    state = jax.tree.map(lambda leaf: leaf + 2.0, state)
    predict = export.load_program(
        export.save_program(tmp_path / "m", model, Variables(params, state), x)
    )
    np.testing.assert_allclose(
        predict(x[:3]), model.apply(params, state, x[:3], train=False, key=None)[0], rtol=1e-6
    )


def test_a_model_that_cannot_be_a_program_is_told(tmp_path: Path):
    def apply(params, state, x, *, train, key):
        return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct(x.shape, x.dtype), x), state

    with pytest.raises(
        FedError, match=r"cannot be written as a program: got .*; export its weights"
    ):
        export.save_program(
            tmp_path / "m",
            Model(lambda key, x: ((), ()), apply),
            Variables(()),
            np.ones((2, 2), np.float32),
        )
    assert list(tmp_path.iterdir()) == []


def test_neither_a_program_nor_its_card_is_written_over(tmp_path: Path):
    model, x = REGISTRY["logistic"](2), np.ones((1, 3), np.float32)
    held = Variables(*model.init(jax.random.key(0), x))
    (tmp_path / "m.json").write_text("mine")
    with pytest.raises(FedError, match=r"there is a file already: got .*m.json"):
        export.save_program(tmp_path / "m", model, held, x)
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"]
