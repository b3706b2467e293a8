"""Compiled iterations: the fixed points and gradients of the uncompiled ones, whole in one graph, part of no state."""

import copy
import pickle
import shutil

import pytest
import torch
import torch.nn.functional as F
from equilibria import convnet, images, mlp, relative

from fklit.eqprop.learning.centered import Centered
from fklit.eqprop.learning.estimators import Cauchy, CorrectedNudge, ExactResponse, Symmetric
from fklit.eqprop.learning.nudges import CrossEntropyNudge
from fklit.eqprop.network.execution import Execution
from fklit.eqprop.relaxation import compiled
from fklit.eqprop.relaxation.relax import relax
from fklit.eqprop.relaxation.settings import Relaxation

FREE = Relaxation(max_iterations=200, tolerance=1e-6)
LINEAR = Relaxation(max_iterations=200, tolerance=1e-6)
ESTIMATORS = [Symmetric(0.5), Cauchy(4, 0.5), ExactResponse(relaxation=LINEAR), CorrectedNudge(0.5), Centered(0.5)]


def make(kind, how, estimator, **more):
    more |= {"free": more.get("free", FREE), "estimator": estimator, "dtype": torch.float32}
    more["execution"] = Execution(compile=how, **more.pop("switches", {}))
    if kind == "mlp":
        return mlp(inputs=50, hidden=(12, 10), gain=0.5, **more)
    return convnet((4, 6), shape=(2, 8, 8), tied=False, gain=0.5, **more)


def step(network, samples=6, live=False):
    """Free state, and gradients of all weights."""
    x, y = images(samples, network.input_shape, dtype=torch.float32)
    network.zero_grad()
    equilibrium = network.free_equilibrium(x)
    state = network.attach(equilibrium, nudge=CrossEntropyNudge(y, 10) if live else None)
    F.cross_entropy(network.read(state), y).backward()
    return equilibrium.state, tuple(weight.grad.clone() for weight in network.parameters())


def same(network, plain, **options):
    got, wanted = step(network, **options), step(plain, **options)
    assert relative(got[0], wanted[0]) < 1e-5, "free states"
    assert relative(got[1], wanted[1]) < 1e-5, "gradients"


@pytest.fixture
def whole(monkeypatch):
    """All of `torch.compile` but the code generation, which takes minutes; a break in a graph is an error.

    A call is one iteration, which is traced in a fifth of the time.
    """
    compiler, asked = torch.compile, []

    def without_code(function, *, mode=None):
        asked.append(mode)
        return compiler(function, backend="eager", fullgraph=True)

    monkeypatch.setattr(torch, "compile", without_code)
    monkeypatch.setattr(compiled, "UNROLLED", 1)
    compiled._compiled.cache_clear()
    yield asked
    torch._dynamo.reset()
    compiled._compiled.cache_clear()


@pytest.mark.parametrize("how", [True, "cudagraphs"])
def test_five_iterations_are_one_graph(whole, how, monkeypatch):
    monkeypatch.setattr(compiled, "UNROLLED", 5)
    network, plain = (make("mlp", setting, ExactResponse(relaxation=LINEAR)) for setting in (how, False))
    same(network, plain)
    assert set(whole) == {"reduce-overhead" if how == "cudagraphs" else None}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_every_phase_is_one_graph(whole, kind, estimator):
    """Also for other sizes of the batch, the nudge along the trajectory, and a low precision before the full one."""
    network, plain = make(kind, True, estimator), make(kind, False, estimator)
    for samples in (6, 3):
        same(network, plain, samples=samples)
    same(network, plain, live=True)
    switches = {"free_precision": "bfloat16", "channels_last": kind == "conv"}
    same(make(kind, "cudagraphs", estimator, switches=switches), make(kind, False, estimator, switches=switches))


@pytest.mark.slow
def test_one_version_for_the_first_size_and_one_for_all_others(whole):
    """Batches shrink while samples converge; the readout's nudge is compiled with the iteration."""
    from torch._dynamo.utils import counters

    network = make("mlp", True, Symmetric(0.1), free=Relaxation(max_iterations=100, tolerance=1e-4))
    before = counters["stats"]["unique_graphs"]
    for samples in (12, 11, 10, 9, 8):
        network.free_equilibrium(images(samples, (50,), seed=samples, dtype=torch.float32)[0])
    assert 2 <= counters["stats"]["unique_graphs"] - before <= 3  # the third for a batch of one


class Scalar:
    """`s <- factor s` for one number a sample, with the sizes of the batches it was asked for."""

    parts, colors = 1, ((0,),)

    def __init__(self, factors, how, sizes=None):
        self.factors, self.execution, self.sizes = factors, Execution(compile=how), [] if sizes is None else sizes

    def update(self, state, layers):
        self.sizes.append(len(state[0]))
        return {0: self.factors[:, None] * state[0]}

    def select(self, samples):
        return Scalar(self.factors[samples], self.execution.compile, self.sizes)


@pytest.mark.parametrize("window", [0, 2])
@pytest.mark.parametrize("check_every", [1, 3])
def test_graphs_see_a_batch_halved_only_and_nothing_else_changes(monkeypatch, check_every, window):
    monkeypatch.setattr(torch, "compile", lambda function, mode=None: function)
    compiled._compiled.cache_clear()
    factors = torch.tensor([0.5, 0.0, 0.9, -1.0, 3.0, 0.1, 0.2, 0.3, 0.85, 0.0, float("nan")], dtype=torch.float64)
    start = (torch.full((len(factors), 1), 0.01, dtype=torch.float64),)
    how = Relaxation(max_iterations=60, tolerance=1e-5, check_every=check_every, anderson_window=window)
    fields = [Scalar(factors, setting) for setting in (False, "cudagraphs")]
    plain, graphs = (relax(field, start, how, detect_period_two=True) for field in fields)
    compiled._compiled.cache_clear()
    for name, wanted in vars(plain).items():
        got = getattr(graphs, name)
        pairs = zip(got, wanted, strict=True) if name == "state" else [(got, wanted)]
        assert all(torch.equal(a, b) for a, b in pairs), name
    assert set(fields[1].sizes) <= {11, 6, 3, 2, 1} and len(set(fields[1].sizes)) > 1
    assert window or not set(fields[0].sizes) <= {11, 6, 3, 2, 1}


@pytest.mark.parametrize(("check_every", "sizes"), [(None, [5, 5, 1, 1]), (7, [5, 1, 1, 5]), (1, [1] * 12)])
def test_a_compiled_call_is_five_iterations_or_one(monkeypatch, check_every, sizes):
    asked = []

    def counting(function, mode=None):
        return lambda *given: asked.append(given[-1]) or function(*given)

    monkeypatch.setattr(torch, "compile", counting)
    compiled._compiled.cache_clear()
    start = (torch.ones(1, 1, dtype=torch.float64),)
    field = Scalar(torch.tensor([0.5], dtype=torch.float64), True)
    result = relax(field, start, Relaxation(max_iterations=12, tolerance=0.0, check_every=check_every))
    compiled._compiled.cache_clear()
    assert asked == sizes
    assert result.iterations.tolist() == [12] and float(result.state[0]) == 0.5**12


@pytest.mark.parametrize("left", [1, 2, 3, 5, 7])
def test_those_that_go_on_stay_in_order(left):
    active = torch.zeros(11, dtype=torch.bool)
    active[torch.tensor([10, 3, 5, 1, 8, 0, 9])[:left]] = True
    assert compiled.going_on(active, left, True).tolist() == active.nonzero().flatten().tolist()
    rows = compiled.going_on(active, left, "cudagraphs").tolist()
    assert rows == sorted(set(rows)) and len(rows) == {1: 1, 2: 2, 3: 3, 5: 6, 7: 11}[left]
    assert set(active.nonzero().flatten().tolist()) <= set(rows)


def test_what_is_compiled_is_no_state(whole):
    network = make("mlp", True, Symmetric(0.1))
    before = set(network.state_dict()), set(vars(network))
    free, gradients = step(network)
    assert (set(network.state_dict()), set(vars(network))) == before
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert twin.execution == network.execution
        again, same_gradients = step(twin)
        assert relative(again, free) == 0 and relative(same_gradients, gradients) == 0


@pytest.mark.slow
def test_under_distributed_data_parallel(whole, tmp_path):
    from torch.nn.parallel import DistributedDataParallel

    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        network = make("mlp", True, Symmetric(0.1))
        _, alone = step(network)
        network.zero_grad()
        x, y = images(6, network.input_shape, dtype=torch.float32)
        F.cross_entropy(DistributedDataParallel(network)(x), y).backward()
        assert relative(tuple(weight.grad for weight in network.parameters()), alone) < 1e-6
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch's own, of its caches and of the device
def test_compiled_by_the_default_backend():
    compiled._compiled.cache_clear()
    free = Relaxation(max_iterations=30, tolerance=1e-6, check_every=1000)  # few sizes, as each takes half a minute
    nudged = Relaxation(max_iterations=10, tolerance=1e-6, check_every=1000)
    estimator = Symmetric(0.5, relaxation=nudged)
    network, plain = (make("mlp", setting, estimator, free=free) for setting in ("cudagraphs", False))
    same(network, plain)
    torch._dynamo.reset()
    compiled._compiled.cache_clear()


def test_refused():
    with pytest.raises(ValueError, match="expected compile True, False or 'cudagraphs', got compile='graphs'"):
        Execution(compile="graphs")
