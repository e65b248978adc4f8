from pathlib import Path

import pytest
from configurations import GOOD, complaint


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.toml"
    path.write_text(GOOD)
    return path


# ----------------------------------------------------------- bad files: what, where, and what to do

BAD = {
    "unknown section": (
        "rounds = 4",
        "evalution = {every = 2}",
        "evalution",
        "did you mean 'evaluation'",
    ),
    "key in the wrong place": ("rounds = 4", "lr = 0.1", "lr", "did you mean 'algorithm.lr'"),
    "misspelt setting": ("lr = 0.1", "lrr = 0.1", "algorithm.lrr", "did you mean 'lr'"),
    "setting of nothing": ("lr = 0.1", "qqq = 0.1", "algorithm.qqq", "choose one of: aggregator"),
    "unknown algorithm": ('"fedavg"', '"fedvag"', "algorithm.name", "did you mean 'fedavg'"),
    "unknown task": ('"digits"', '"digit"', "task.name", "did you mean 'digits'"),
    "unknown sampler": ('"uniform"', '"unifrom"', "sampler.kind", "did you mean 'uniform'"),
    "unknown aggregator": (
        '"mean"',
        '"maen"',
        "algorithm.aggregator.1.kind",
        "did you mean 'mean'",
    ),
    "no algorithm": (
        "[algorithm]",
        "[evaluation]",
        "algorithm",
        "add a table [algorithm] with name",
    ),
    "no kind": ('kind = "uniform"', "", "sampler.kind", "add kind, one of: cyclic"),
    "section that is a number": ("rounds = 4", "engine = 3", "engine", "must be a table"),
    "text for a whole number": (
        "rounds = 4",
        'rounds = "4"',
        "rounds",
        "remove the quotation marks",
    ),
    "fraction for a whole number": (
        "rounds = 4",
        "rounds = 4.0",
        "rounds",
        "must be a whole number",
    ),
    "truth for a number": ("lr = 0.1", "lr = true", "algorithm.lr", "must be a number"),
    "text for a number": ("lr = 0.1", 'lr = "fast"', "algorithm.lr", "write lr = 0.1"),
    "number for a list": (
        "lr = 0.1",
        "aggregators = 1",
        "algorithm.aggregators",
        "did you mean 'aggregator'",
    ),
    "text for an aggregator": ("lr = 0.1", 'local = "clip"', "algorithm.local", "kind ="),
    "too few rounds": ("rounds = 4", "rounds = 0", "rounds", "must be at least 1"),
    "negative seed": ("rounds = 4", "seed = -1", "seed", "must be at least 0"),
    "rate that is not positive": ("lr = 0.1", "lr = -0.1", "algorithm.lr", "above 0"),
    "norm that is not positive": (
        "max_norm = 1.0",
        "max_norm = 0.0",
        "algorithm.aggregator.0.max_norm",
        "above 0",
    ),
    "missing setting": (
        ", max_norm = 1.0",
        "",
        "algorithm.aggregator.0.max_norm",
        "add max_norm = 0.1",
    ),
    "share above 1": (
        "dropout = 0.1",
        "dropout = 1.5",
        "sampler.dropout.rate",
        "a value such as 0.1",
    ),
    "text for a share": (
        "dropout = 0.1",
        'dropout = "often"',
        "sampler.dropout",
        "write dropout = 0.1",
    ),
    "wrapper without its setting": ("share = 0.5, ", "", "sampler.stragglers.share", "add share ="),
    "batch size of nothing": (
        "batch_size = 8",
        "batch_size = 0",
        "local_work.batch_size",
        "above 0",
    ),
    "unknown engine": (
        "[local_work]",
        '[engine]\nkind = "queu"\n[local_work]',
        "engine.kind",
        "did you mean 'queue'",
    ),
    "lanes in words": (
        "[local_work]",
        '[engine]\nlanes = "many"\n[local_work]',
        "engine.lanes",
        'write lanes = "auto"',
    ),
    "stop without a bound": (
        "[local_work]",
        '[stop]\nmetric = "test/loss"\n[local_work]',
        "stop",
        "give either at_least or at_most",
    ),
    "stop with two bounds": (
        "[local_work]",
        "[stop]\nat_least = 0.1\nat_most = 0.9\n[local_work]",
        "stop",
        "give either at_least or at_most",
    ),
    "infinite bound": (
        "[local_work]",
        "[stop]\nat_least = inf\n[local_work]",
        "stop.at_least",
        "write at_least = 0.1",
    ),
    "infinite rate": ("lr = 0.1", "lr = inf", "algorithm.lr", "must be a finite number"),
    "rate that is no number": ("lr = 0.1", "lr = nan", "algorithm.lr", "write lr = 0.1"),
    "infinite schedule": (
        "lr = 0.1",
        'lr = { kind = "linear", start = inf, steps = 9 }',
        "algorithm.lr.start",
        "finite",
    ),
    "infinite pull": ('"fedavg"', '"fedprox"\nmu = inf', "algorithm.mu", "must be a finite number"),
    "infinite cohort": (
        '"uniform"\ncohort = 4',
        '"poisson"\nexpected = inf',
        "sampler.expected",
        "must be a finite number",
    ),
    "checkpoints of no round": (
        "[local_work]",
        "[checkpoint]\nkeep_every = 0\n[local_work]",
        "checkpoint.keep_every",
        "must be at least 1",
    ),
    "no shards": (
        "[local_work]",
        "[engine]\nshards = 0\n[local_work]",
        "engine.shards",
        "must be at least 1",
    ),
    "no devices": (
        "[local_work]",
        "[engine]\ndevices = 0\n[local_work]",
        "engine.devices",
        "must be at least 1",
    ),
    "list element of a wrong type": (
        "[local_work]",
        '[model]\nname = "mlp"\nhidden = [10, "x"]\n[local_work]',
        "model.hidden.1",
        "whole number",
    ),
    "schedule without its start": (
        "lr = 0.1",
        'lr = { kind = "cosine", steps = 9 }',
        "algorithm.lr.start",
        "add start = 0.1",
    ),
    "unknown schedule": (
        "lr = 0.1",
        'lr = { kind = "cosin" }',
        "algorithm.lr.kind",
        "did you mean 'cosine'",
    ),
    "chain without a reducer": (
        ', { kind = "mean" }',
        "",
        "algorithm.aggregator",
        "put mean, unweighted_mean, scaled_sum or median last",
    ),
    "unknown partition": (
        "clients = 12",
        'partition = { kind = "iidd" }',
        "task.partition.kind",
        "did you mean 'iid'",
    ),
    "unknown partition by its name": (
        "clients = 12",
        'partition = "shard"',
        "task.partition",
        "did you mean 'shards'",
    ),
    "partition without its kind": (
        "clients = 12",
        "partition = { alpha = 0.1 }",
        "task.partition.kind",
        "add kind, one of: continuous",
    ),
    "partition without its setting": (
        "clients = 12",
        'partition = "sized"',
        "task.partition.sizes",
        "add sizes = [10, 10]",
    ),
    "setting of another partition": (
        "clients = 12",
        'partition = { kind = "iid", alpha = 0.1 }',
        "task.partition.alpha",
        "choose one of",
    ),
    "partition with its own seed": (
        "clients = 12",
        'partition = { kind = "iid", seed = 3 }',
        "task.partition.seed",
        "mean 'task.seed'",
    ),
    "number for a partition": (
        "clients = 12",
        "partition = 3",
        "task.partition",
        'write partition = { kind = "iid" }',
    ),
    "setting of a partition of its name": (
        "rounds = 4",
        "task.partition = 'iid'\ntask.partition.alpha = 1",
        "(syntax)",
        "fix that line",
    ),
    "unknown optimizer": (
        "lr = 0.1",
        'local = { kind = "sdg" }',
        "algorithm.local.kind",
        "did you mean 'sgd'",
    ),
}
BUILT = {
    "cohort larger than the population": (
        ["sampler.cohort=13"],
        "sampler.cohort",
        "lower it to 12",
    ),
    "too many devices": (["engine.devices=99"], "engine.devices", "lower it to"),
    "shards that devices do not divide": (
        ["engine.devices=2", "engine.shards=3"],
        "engine.shards",
        "use 2 or 4",
    ),
    "vmap on two devices": (
        ["engine.devices=2", "engine.backend=vmap"],
        "engine.backend",
        "shard_map",
    ),
    "poisson beyond the population": (
        ["sampler={kind='poisson', expected=20.0}"],
        "sampler.expected",
        "lower it to 12",
    ),
    "unknown model": (["task.model=mpl"], "task.model", "did you mean 'mlp'"),
    "two models": (["task.model=cnn", "model.name=mlp"], "task.model", "remove one of them"),
    "model for a task that has one": (
        ["task={name='quadratic'}", "model.name=mlp"],
        "model",
        "remove it",
    ),
    "more clients than examples": (["task.clients=100000"], "task.clients", "use fewer clients"),
    "negative seed of the data": (["task.seed=-1"], "task.seed", "give seed 0"),
    "negative clients": (["task.clients=-1"], "task.clients", "give clients a value"),
    "no shards for a client": (
        ["task.partition={kind='shards', per_client=0}"],
        "task.partition.per_client",
        "a value above 0",
    ),
    "hopeless skew": (
        ["task.partition={kind='dirichlet', alpha=1e-9}"],
        "task.partition.alpha",
        "raise alpha",
    ),
    "other clients than the partition makes": (
        ["task.partition={kind='sized', sizes=[3, 4]}"],
        "task.clients",
        "set clients to 2",
    ),
    "partition by what is not there": (
        ["task.partition=natural"],
        "task.partition",
        "choose a partition by labels, such as iid",
    ),
    "model for other data": (["model.name=char_lstm"], "model", "encode the text"),
    "model of the task for other data": (
        ["task.model=transformer"],
        "task.model",
        "encode the text",
    ),
    "stop at a misspelt number": (
        ["stop={metric='test/acuracy', at_least=0.5}"],
        "stop.metric",
        "did you mean 'test/accuracy'",
    ),
    "stop at clients nobody evaluates": (
        ["stop={metric='clients/loss', at_most=0.5}"],
        "stop.metric",
        "did you mean",
    ),
    "stop without a global test set": (
        ["task.global_test_fraction=0.0", "stop.at_least=0.5"],
        "stop.metric",
        "no metric has this name",
    ),
    "stop at another algorithm's number": (
        ["stop={metric='personal_loss', at_most=0.5}"],
        "stop.metric",
        "clipped, cohort",
    ),
    "no data": (
        ["task={name='mnist', source='/nowhere'}"],
        "task.source",
        "fedjax-sim data prepare mnist.npz --out /nowhere",
    ),
    "no data of TFDS": (
        ["task={name='cifar10', data_dir='/nowhere'}"],
        "task.source",
        "tfds.builder('cifar10', data_dir='/nowhere'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_answered_with_key_and_advice(good: Path, name: str):
    old, new, key, advice = BAD[name]
    assert old in GOOD
    good.write_text(GOOD.replace(old, new, 1))
    lines = complaint(good)
    about = [line for line in lines if line.startswith(f"{good}: {key}: ")]
    assert about, lines
    assert advice in about[0]
    assert ": got " in about[0]
    assert "; " in about[0]


@pytest.mark.parametrize("name", BUILT)
def test_what_does_not_fit_together_is_answered_with_key_and_advice(good: Path, name: str):
    overrides, key, advice = BUILT[name]
    lines = complaint(good, overrides, made=True)
    about = [line for line in lines if line.split(": ")[1] == key]
    assert about, lines
    assert advice in about[0]


def test_all_problems_are_told_at_once_and_in_one_go(good: Path):
    text = (
        GOOD.replace("rounds = 4", 'rounds = "4"')
        .replace("lr = 0.1", "lr = -1.0")
        .replace("cohort = 4", "chort = 4")
    )
    good.write_text(text.replace("clients = 12", "clients = 0") + "stuff = 1\n")
    keys = [line.split(": ")[1] for line in complaint(good)]
    assert sorted(keys) == [
        "algorithm.lr",
        "local_work.stuff",
        "rounds",
        "sampler.chort",
        "task.clients",
    ]


@pytest.mark.parametrize(
    "text", ["rounds = ", "rounds = 4\nrounds = 5", "[task\nname = 1", "x = [1,"]
)
def test_what_is_not_toml_is_told_with_the_line(good: Path, text: str):
    good.write_text(text)
    (line,) = complaint(good)
    assert line.startswith(f"{good}: (syntax): must be TOML: got ")
    assert "line" in line or "end of document" in line


def test_a_missing_file_and_a_binary_one_are_told(tmp_path: Path):
    assert "No such file" in complaint(tmp_path / "absent.toml")[0]
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in complaint(tmp_path / "binary.toml")[0]
