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
# # Quickstart: two algorithms on clients with different data
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/fedjax-sim/fedjax_sim/blob/main/notebooks/quickstart.ipynb)
#
# Sixty clients hold handwritten digits, and most of them hold at most three of the ten classes.
# No client sends its images: in each round ten clients receive the server's model, train it on
# their own images and send the change of its parameters. We let **FedAvg** and **SCAFFOLD** train
# on the same clients, and plot the accuracy of the global model.
#
# The installation names the version of JAX that is already installed, so that pip keeps it:
# Colab's JAX matches the drivers of its accelerators, and another version might not find them.

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

fs.use_cores()  # on a CPU every core becomes a device; on other platforms this changes nothing
print("fedjax_sim", fs.__version__, "| jax", jax.__version__, "|", jax.devices())

# %% [markdown]
# ## The data
#
# A task is data, a model and a loss. `digits` needs no download. `alpha` sets how evenly the
# labels are spread: with 100 every client holds all ten digits in similar numbers, with 0.1 most
# clients hold mainly two or three of them.

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
# FedAvg averages the clients' models. If their data differ, each client's steps drift towards the
# optimum of its own data, and the average of such drifts is not a step towards the common
# optimum. In SCAFFOLD every client keeps a control variate, an estimate of its own gradient, and
# corrects each local step by the difference from the mean over clients.
#
# `make_round` compiles an algorithm, a sampler, the data and the clients' local work into one
# function: a whole round.

# %%
algorithms = {
    "FedAvg": fs.fedavg(task.objective, lr=0.1),
    "SCAFFOLD": fs.scaffold(task.objective, lr=0.1),
}
local_work = fs.local_work(batch_size=10, epochs=5)
programs = {
    name: fs.make_round(algorithm, fs.samplers.uniform(10), train, local_work)
    for name, algorithm in algorithms.items()
}

# %% [markdown]
# ## Training
#
# `simulate` runs the rounds and evaluates the model on images that no client holds. Both
# algorithms start from the same model and train on the same clients in the same order, because
# all random numbers of the rounds follow from one seed.

# %%
rounds = int(os.environ.get("FEDJAX_SIM_NOTEBOOK_ROUNDS", "200"))
start = task.init(jax.random.key(0))
histories = {}

for name, program in programs.items():
    evaluate = fs.make_evaluation(algorithms[name], task, program, clients=False)
    result = fs.simulate(program, start, rounds=rounds, evaluate=evaluate, evaluate_every=5)
    histories[name] = result.history
    accuracy = result.history.latest("test/accuracy")
    print(f"{name}: {accuracy:.1%} after {rounds} rounds, {result.seconds:.0f} seconds")

# %% [markdown]
# ## Results
#
# Both algorithms reach a high accuracy; SCAFFOLD needs fewer rounds, but sends twice as many
# numbers in each round. One seed is not evidence: repeat the runs with other seeds (`seed=1` in
# `simulate`) before you draw conclusions from a small difference.

# %%
from IPython.display import Image, display

display(Image(str(fs.plot_runs(histories, "quickstart.png", metrics=["test/accuracy"])), width=560))

# %% [markdown]
# Things to try: `alpha=100`, where both perform alike; another algorithm:
# `list(fs.algorithms.REGISTRY)` gives the names, and `help(fs.fedprox)` describes one;
# `fs.samplers.dropout(fs.samplers.uniform(10), 0.3)`, where some clients do not report. The
# README has the rest.
