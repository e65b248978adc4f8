"""Models of token sequences, without state.

Inputs are integers ``[B, T]``; outputs are float32 logits ``[B, T, vocabulary]`` of the *next*
token at every position.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from fedjax_sim.core.errors import fraction, positive, require
from fedjax_sim.core.types import Array
from fedjax_sim.models.adapters import from_linen
from fedjax_sim.models.base import Model
from fedjax_sim.models.recurrent import LSTM


def char_lstm(vocabulary: int = 90, width: int = 256, layers: int = 2, embedding: int = 8) -> Model:
    """The character LSTM of the Shakespeare experiments.

    | layer | output | parameters, defaults |
    |---|---|---|
    | embedding | ``[B, T, 8]`` | 720 |
    | LSTM | ``[B, T, 256]`` | 271,360 |
    | LSTM | ``[B, T, 256]`` | 525,312 |
    | dense | ``[B, T, 90]`` | 23,130 |

    820,522 parameters. The default vocabulary has 86 characters and four special tokens. The layers
    are :class:`~fedjax_sim.models.recurrent.LSTM`.

    Args:
      vocabulary: number of tokens.
      width: size of the hidden state of each layer.
      layers: number of LSTM layers.
      embedding: size of the token embeddings.

    Example:
      >>> import fedjax_sim as fs
      >>> import jax
      >>> import numpy as np
      >>> model = fs.models.char_lstm(vocabulary=10, width=8, layers=1)
      >>> x = np.zeros((2, 5), np.int32)
      >>> params, state = model.init(jax.random.key(0), x)
      >>> model.apply(params, state, x, train=False, key=None)[0].shape
      (2, 5, 10)

    Reference: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
    Data", AISTATS 2017 (two layers of 256 over embeddings of 8); Reddi et al., "Adaptive Federated
    Optimization", ICLR 2021 (logits at every position).
    """
    sizes = {"vocabulary": vocabulary, "width": width, "layers": layers, "embedding": embedding}
    for name, value in sizes.items():
        positive(name, value)
    return from_linen(_CharLstm(vocabulary, width, layers, embedding))


def transformer(
    vocabulary: int = 90,
    width: int = 128,
    layers: int = 2,
    heads: int = 4,
    length: int = 80,
    dropout: float = 0.0,
) -> Model:
    """A small causal decoder.

    It has pre-norm blocks, learned positions, GELU, and a last layer that does not share the
    weights of the embedding.

    | layer | output | parameters, width W |
    |---|---|---|
    | embeddings of tokens and positions | ``[B, T, W]`` | (vocabulary + length) W |
    | each block: attention, dense to 4 W, dense to W | ``[B, T, W]`` | 12 W^2 + 13 W |
    | norm, dense | ``[B, T, vocabulary]`` | 2 W + (W + 1) vocabulary |

    430,170 parameters with the defaults.

    Args:
      vocabulary: number of tokens.
      width: W, a multiple of ``heads``.
      layers: number of blocks.
      heads: number of attention heads.
      length: largest number of tokens T in a sequence.
      dropout: share of values dropped from the attention weights and from each residual branch, in
        [0, 1].

    Example:
      >>> import fedjax_sim as fs
      >>> import jax
      >>> import numpy as np
      >>> model = fs.models.transformer()
      >>> x = np.zeros((2, 80), np.int32)
      >>> params, state = jax.eval_shape(model.init, jax.random.key(0), x)
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      430170

    Reference: Vaswani et al., "Attention Is All You Need", NeurIPS 2017; Radford et al., "Language
    Models are Unsupervised Multitask Learners", 2019 (norms first).
    """
    sizes = {
        "vocabulary": vocabulary,
        "width": width,
        "layers": layers,
        "heads": heads,
        "length": length,
    }
    for name, value in sizes.items():
        positive(name, value)
    fraction("dropout", dropout, zero=True)
    require(
        width % heads == 0,
        "heads must divide width",
        got=f"heads={heads}, width={width}",
        fix="choose a width that is a multiple of heads",
        setting="heads",
    )
    return from_linen(_Transformer(vocabulary, width, layers, heads, length, dropout))


def tokens(x: Array) -> Array:
    """Inputs as int32 ``[B, T]``.

    Raises:
      FedError: if ``x`` does not have two axes, or is not of an integer type.
    """
    require(
        x.ndim == 2 and jnp.issubdtype(x.dtype, jnp.integer),
        "a sequence model takes integer tokens [B, T]",
        got=f"{x.dtype}{list(x.shape)}",
        fix="encode the text as token numbers",
    )
    return x.astype(jnp.int32)


class _CharLstm(nn.Module):
    vocabulary: int
    width: int
    layers: int
    embedding: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        embed = nn.Embed(self.vocabulary, self.embedding, name="embedding_of_tokens")
        x = embed(tokens(x).T)  # [T, B, embedding]
        for layer in range(self.layers):
            x = LSTM(self.width, name=f"lstm_{layer}")(x)
        logits = nn.Dense(self.vocabulary, name="head")(x)
        return logits.swapaxes(0, 1)


# ------------------------------------------------------------------------------------ transformer


class _Block(nn.Module):
    heads: int
    dropout: float

    @nn.compact
    def __call__(self, x: Array, mask: Array, train: bool) -> Array:
        drop = nn.Dropout(self.dropout, deterministic=not train)
        attention = nn.MultiHeadDotProductAttention(
            self.heads, dropout_rate=self.dropout, deterministic=not train, name="attention"
        )
        x = x + drop(attention(nn.LayerNorm(name="norm_0")(x), mask=mask))
        wide = nn.gelu(nn.Dense(4 * x.shape[-1], name="widen")(nn.LayerNorm(name="norm_1")(x)))
        return x + drop(nn.Dense(x.shape[-1], name="narrow")(wide))


class _Transformer(nn.Module):
    vocabulary: int
    width: int
    layers: int
    heads: int
    length: int
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = tokens(x)
        length = x.shape[1]
        require(
            length <= self.length,
            f"the transformer takes at most {self.length} tokens",
            got=length,
            fix=f"build it with length={length}",
            setting="length",
        )
        mask = nn.make_causal_mask(x)
        embed_positions = nn.Embed(self.length, self.width, name="embedding_of_places")
        positions = embed_positions(jnp.arange(length))
        x = nn.Embed(self.vocabulary, self.width, name="embedding_of_tokens")(x) + positions
        for layer in range(self.layers):
            x = _Block(self.heads, self.dropout, name=f"block_{layer}")(x, mask, train)
        return nn.Dense(self.vocabulary, name="head")(nn.LayerNorm(name="norm")(x))
