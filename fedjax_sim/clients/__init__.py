"""Learners' wrappers: what a client keeps in its memory, each as a function Learner -> Learner."""

from fedjax_sim.clients.compression import Codec, error_feedback, top_k
from fedjax_sim.clients.personalization import Private, ditto, private_state, private_statistics

__all__ = [
    "Codec",
    "Private",
    "ditto",
    "error_feedback",
    "private_state",
    "private_statistics",
    "top_k",
]
