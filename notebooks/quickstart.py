# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Quickstart: two algorithms on clients that disagree
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/fedjax-sim/fedjax_sim/blob/main/notebooks/quickstart.ipynb)
#
# Sixty clients hold handwritten digits, and most of them know three of the ten at most. No client ever shows its images to
# anybody: in each round ten clients take the server's model, train it at home and send back what changed. We let **FedAvg** and
# **SCAFFOLD** do that on the same clients, and plot how accurate the common model becomes.
#
# The installation names the version of JAX that is already there, so that pip keeps it: Colab's JAX is built to match the drivers of
# its accelerators, and another version might not find them.

# %%
import importlib.util
import os
from importlib.metadata import version

if importlib.util.find_spec("fedjax_sim") is None:
    keep = " ".join(
        f"{name}=={version(name)}" for name in ("jax", "jaxlib") if importlib.util.find_spec(name)
    )
    # %pip install -q fedjax-sim {keep}

import jax

import fedjax_sim as fs

fs.use_cores()  # on a CPU every core becomes a device; elsewhere this changes nothing
print("fedjax_sim", fs.__version__, "| jax", jax.__version__, "|", jax.devices())

# %% [markdown]
# ## The data
#
# A task brings data, a model and a loss. `digits` needs no download. `alpha` says how evenly the labels are spread: at 100 every
# client has its share of all ten digits, at 0.1 most have little beyond two or three.

# %%
from functools import partial

import numpy as np

task = fs.tasks.digits(clients=60, partition=partial(fs.data.dirichlet, alpha=0.1))
train = task.data.train

print("images of each digit on the first clients:")
for client in range(6):
    labels = train.y[train.offsets[client] : train.offsets[client + 1]]
    print(
        f"client {client}:",
        *(f"{count:4d}" if count else "   ." for count in np.bincount(labels, minlength=10)),
    )

# %% [markdown]
# ## The two algorithms
#
# FedAvg averages what the clients learned. Where their data differ, each pulls the model towards its own digits, and the average
# of many such pulls wanders. SCAFFOLD lets every client remember in which direction its data pull, and corrects each of its steps by it.
#
# `make_round` turns an algorithm, a way to choose clients, the data and the clients' homework into one compiled function: a whole round.

# %%
algorithms = {
    "FedAvg": fs.fedavg(task.objective, lr=0.1),
    "SCAFFOLD": fs.scaffold(task.objective, lr=0.1),
}
homework = fs.local_work(batch_size=10, epochs=5)
programs = {
    name: fs.make_round(each, fs.samplers.uniform(10), train, homework)
    for name, each in algorithms.items()
}

# %% [markdown]
# ## Training
#
# `simulate` runs the rounds and evaluates the model on images that no client has. Both algorithms begin with the same model and see
# the same clients in the same order, for all random numbers of the rounds follow from one seed.

# %%
rounds = int(os.environ.get("FEDJAX_SIM_NOTEBOOK_ROUNDS", "200"))
start = task.init(jax.random.key(0))
histories = {}

for name, program in programs.items():
    evaluate = fs.make_evaluation(algorithms[name], task, program, clients=False)
    result = fs.simulate(program, start, rounds=rounds, evaluate=evaluate, evaluate_every=5)
    histories[name] = result.history
    print(
        f"{name}: {result.history.latest('test/accuracy'):.1%} after {rounds} rounds, {result.seconds:.0f} seconds"
    )

# %% [markdown]
# ## What happened
#
# Both get there; SCAFFOLD gets there sooner. It pays for that by sending two models' worth of numbers instead of one. One seed is an
# anecdote: repeat it with others (`seed=1` in `simulate`) before you believe a small difference.

# %%
from IPython.display import Image, display

display(Image(str(fs.plot_runs(histories, "quickstart.png", metrics=["test/accuracy"])), width=560))

# %% [markdown]
# Things to try: `alpha=100`, where both do alike. Another algorithm: `list(fs.algorithms.REGISTRY)` names them all, and `help(fs.fedprox)`
# explains one. `fs.samplers.dropout(fs.samplers.uniform(10), 0.3)`, where some clients never answer. The README goes on from here.
