"""FedJAX's federated averaging on its default backend: one jitted call per client and local step.

Its other backend, pmap, does not run on current JAX. With the missing functions added, on two CPU
devices, it took twice (W1) to three times (W3) as long as this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import fedjax
import jax
import jax.numpy as jnp
import numpy as np
from fedjax.algorithms import fed_avg
from jax_models import apply, losses
from protocol import Job, Params, serve

jax.tree_map = jax.tree.map  # FedJAX uses this name, which JAX has removed


class Ordered(fedjax.ClientDataset):
    """A client's data in its own order.

    ``shuffle_repeat_batch``, which the algorithm calls, fills the last batch of an epoch with
    examples of the next one; here that batch is padded and masked instead, by FedJAX's own
    ``padded_batch``, so that all contenders take the same steps.
    """

    def shuffle_repeat_batch(self, hparams: fedjax.ShuffleRepeatBatchHParams) -> Iterator:
        return iter(self.padded_batch(batch_size=hparams.batch_size))


def setup(job: Job) -> tuple[Callable[[], None], Callable[[], Params]]:
    """FedJAX's round, and a function that returns its parameters."""
    run = apply(job)
    model = fedjax.Model(
        init=lambda rng: job.init,
        apply_for_train=lambda params, batch, rng: run(params, batch["x"]),
        apply_for_eval=lambda params, batch: run(params, batch["x"]),
        train_loss=lambda batch, logits: losses(logits, batch["y"]),
        eval_metrics={},
    )
    hparams = fedjax.ShuffleRepeatBatchHParams(batch_size=job.batch_size, num_epochs=job.epochs)
    algorithm = fed_avg.federated_averaging(
        fedjax.model_grad(model),
        fedjax.optimizers.sgd(job.lr),
        fedjax.optimizers.sgd(1.0),
        hparams,
    )
    keys = jax.random.split(jax.random.PRNGKey(job.seed), len(job.cohort))
    clients = [
        (b"%d" % i, Ordered({"x": x, "y": y}), keys[i]) for i, (x, y) in enumerate(job.clients())
    ]
    held = {"state": algorithm.init({name: jnp.asarray(value) for name, value in job.init.items()})}

    def round() -> None:
        held["state"], _ = algorithm.apply(held["state"], clients)
        jax.block_until_ready(held["state"].params)

    return round, lambda: {name: np.asarray(value) for name, value in held["state"].params.items()}


serve(setup, "fedjax", "jax")
