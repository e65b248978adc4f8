"""Names of the package, for editors and type checkers. Written by `make generated`."""

from fedjax_sim import aggregators as aggregators
from fedjax_sim import algorithms as algorithms
from fedjax_sim import clients as clients
from fedjax_sim import data as data
from fedjax_sim import models as models
from fedjax_sim import optimizers as optimizers
from fedjax_sim import samplers as samplers
from fedjax_sim import tasks as tasks
from fedjax_sim import testing as testing
from fedjax_sim.aggregators import chain as chain
from fedjax_sim.aggregators import stage as stage
from fedjax_sim.algorithms.ditto import ditto as ditto
from fedjax_sim.algorithms.error_feedback import error_feedback as error_feedback
from fedjax_sim.algorithms.fedadagrad import fedadagrad as fedadagrad
from fedjax_sim.algorithms.fedadam import fedadam as fedadam
from fedjax_sim.algorithms.fedavg import fedavg as fedavg
from fedjax_sim.algorithms.fedavgm import fedavgm as fedavgm
from fedjax_sim.algorithms.fedprox import fedprox as fedprox
from fedjax_sim.algorithms.fedsgd import fedsgd as fedsgd
from fedjax_sim.algorithms.fedyogi import fedyogi as fedyogi
from fedjax_sim.algorithms.mime import mime as mime
from fedjax_sim.algorithms.scaffold import scaffold as scaffold
from fedjax_sim.core.errors import FedError as FedError
from fedjax_sim.core.law import Law as Law
from fedjax_sim.core.types import Aggregator as Aggregator
from fedjax_sim.core.types import Algorithm as Algorithm
from fedjax_sim.core.types import Batch as Batch
from fedjax_sim.core.types import Learner as Learner
from fedjax_sim.core.types import Mean as Mean
from fedjax_sim.core.types import Member as Member
from fedjax_sim.core.types import Message as Message
from fedjax_sim.core.types import Objective as Objective
from fedjax_sim.core.types import Outcome as Outcome
from fedjax_sim.core.types import Roster as Roster
from fedjax_sim.core.types import RoundState as RoundState
from fedjax_sim.core.types import Sampler as Sampler
from fedjax_sim.core.types import Server as Server
from fedjax_sim.core.types import Upload as Upload
from fedjax_sim.core.types import Variables as Variables
from fedjax_sim.data import Examples as Examples
from fedjax_sim.data import Federation as Federation
from fedjax_sim.data import Population as Population
from fedjax_sim.data import by_client as by_client
from fedjax_sim.data import from_arrays as from_arrays
from fedjax_sim.data import from_partition as from_partition
from fedjax_sim.data import local_work as local_work
from fedjax_sim.data import population as population
from fedjax_sim.engine import Engine as Engine
from fedjax_sim.engine.federate import federate as federate
from fedjax_sim.engine.program import Program as Program
from fedjax_sim.engine.program import make_round as make_round
from fedjax_sim.experiments.config.load import load_config as load_config
from fedjax_sim.experiments.records import RunFolder as RunFolder
from fedjax_sim.experiments.rooms import register as register
from fedjax_sim.experiments.run import run as run
from fedjax_sim.experiments.simulate import simulate as simulate
from fedjax_sim.models import Model as Model
from fedjax_sim.models import from_functions as from_functions
from fedjax_sim.models import from_linen as from_linen
from fedjax_sim.models import from_nnx as from_nnx
from fedjax_sim.models.objectives import classification as classification
from fedjax_sim.models.objectives import regression as regression
from fedjax_sim.persistence import export as export
from fedjax_sim.persistence import weights as weights
from fedjax_sim.persistence.checkpoint import open_store as open_store
from fedjax_sim.persistence.checkpoint import state_hash as state_hash
from fedjax_sim.report import comparison as comparison
from fedjax_sim.report import plot_runs as plot_runs
from fedjax_sim.runtime.devices import enable_compilation_cache as enable_compilation_cache
from fedjax_sim.runtime.devices import use_cores as use_cores
from fedjax_sim.simulation.callbacks import Stop as Stop
from fedjax_sim.simulation.callbacks import callback as callback
from fedjax_sim.simulation.evaluate import make_evaluation as make_evaluation
from fedjax_sim.simulation.history import History as History
from fedjax_sim.tasks import Task as Task

__version__: str

__all__ = [
    "Aggregator",
    "Algorithm",
    "Batch",
    "Engine",
    "Examples",
    "FedError",
    "Federation",
    "History",
    "Law",
    "Learner",
    "Mean",
    "Member",
    "Message",
    "Model",
    "Objective",
    "Outcome",
    "Population",
    "Program",
    "Roster",
    "RoundState",
    "RunFolder",
    "Sampler",
    "Server",
    "Stop",
    "Task",
    "Upload",
    "Variables",
    "__version__",
    "aggregators",
    "algorithms",
    "by_client",
    "callback",
    "chain",
    "classification",
    "clients",
    "comparison",
    "data",
    "enable_compilation_cache",
    "export",
    "federate",
    "from_arrays",
    "from_functions",
    "from_linen",
    "from_nnx",
    "from_partition",
    "load_config",
    "local_work",
    "make_evaluation",
    "make_round",
    "models",
    "open_store",
    "optimizers",
    "plot_runs",
    "population",
    "register",
    "regression",
    "run",
    "samplers",
    "simulate",
    "stage",
    "state_hash",
    "tasks",
    "testing",
    "use_cores",
    "weights",
]
