"""Calls drawn at random, each beside the plain scan of the same equation under `jax.jit`.

Sizes are log-uniform: batch to 128, steps to 500, but no more than a call of some 50 ms has,
features to 64, nodes to 256. A quarter are in float64. Half are under `jax.vmap`: over parameter
sets, or over sequences, as for gradients of each example. What is computed: the last state or all,
the loss and its gradient by the parameters, the gradient by x, a jvp, a Hessian-vector product; in
small networks Jacobians and a Hessian by all parameters. Each option is drawn: activation, leak,
currents, lengths, resets, reverse, h0.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from bench.cells import CALLS
from bench.compare import Row, assert_agreement, print_row, rows_of
from bench.kinds import BY_ALL, BY_X, FORWARD, GRADIENT, JVP, OF_LAST, PRODUCT
from bench.peers import PLAIN, Program
from bench.timing import time_calls

FUNCTIONS = ("tanh", "relu", "sigmoid", "softplus", "silu", "gelu")  # of jax.nn
OPTIONS = ("lengths", "resets", "h0")
LEAK = 0.3  # where it is one number

# What is computed: how often it is drawn, and roughly how many forward passes it costs.
KINDS = {FORWARD: 4, GRADIENT: 8, BY_X: 2, JVP: 2, PRODUCT: 2, **dict.fromkeys(BY_ALL, 1)}
COSTS = {FORWARD: 1, GRADIENT: 3, BY_X: 3, JVP: 2, PRODUCT: 8, **dict.fromkeys(BY_ALL, 50)}
MAX_SECONDS = 0.05
TOLERANCES = {"float32": 1e-4, "float64": 1e-11}


class Call(NamedTuple):
    """One call: sizes, what is computed of the last state or of every, and options.

    `over` is what `jax.vmap` maps over: "params", of which there are then `n_sets`, "x" with all
    that belongs to one sequence, or None.
    """

    seed: int
    number: int
    batch: int
    n_steps: int
    n_features: int
    n_nodes: int
    kind: str = FORWARD
    every: bool = False
    dtype: str = "float32"
    activation: str = "tanh"
    rate: str = "identity"
    leak: str | None = None
    lengths: bool = False
    resets: bool = False
    reverse: bool = False
    h0: bool = False
    over: str | None = None
    n_sets: int = 1

    def __str__(self) -> str:
        """The call in words."""
        words = [f"{self.kind} of {'all states' if self.every else 'the last state'}"]
        words += [", ".join(map(str, self[2:6])), self.dtype]
        words.append(self.activation if self.rate == "identity" else f"currents with {self.rate}")
        words += [] if self.leak is None else [f"leak of {self.leak}"]
        words += [name for name in (*OPTIONS, "reverse") if getattr(self, name)]
        mapped = {"params": [f"vmap over {self.n_sets} sets of params"], "x": ["vmap over x"]}
        return ", ".join(words + mapped.get(self.over or "", []))

    @property
    def name(self) -> str:
        """The arguments of `python -m bench --only calls` that repeat it."""
        return f"--seed {self.seed} --cell {self.number}"

    def seconds(self) -> float:
        """Roughly how long it takes. Under vmap over x, each sequence may have a gradient."""
        of_product = 5e-10 if self.over == "x" else 1e-10
        weights = self.n_nodes * (self.n_nodes + self.n_features)
        of_step = self.n_sets * self.batch * (of_product * weights + 3e-9 * self.n_nodes)
        of_step *= 2 if self.dtype == "float64" else 1
        return COSTS[self.kind] * self.n_steps * (2e-6 + of_step)

    def arguments(self) -> tuple[Any, ...]:
        """What its program is called on: parameters, x, options, and perhaps tangents."""
        random = np.random.default_rng([self.seed, self.number, 1])

        def uniform(bound: float, *shape: int) -> jax.Array:
            return jnp.asarray(random.uniform(-bound, bound, shape), self.dtype)

        n, sequences = self.n_nodes, (self.batch, self.n_steps)
        # The largest `wh` with which rounding errors do not grow, whatever the functions.
        shapes = ((self.n_features, n), self.n_features**-0.5), ((n, n), 0.7 * n**-0.5), ((n,), 1)
        sets = (self.n_sets,) if self.over == "params" else ()
        params, tangents = (
            tuple(uniform(bound, *sets, *shape) for shape, bound in shapes) for _ in range(2)
        )
        options = {
            "each node": 0.55 + uniform(0.45, n),
            "each step": 0.55 + uniform(0.45, self.n_steps, 1),
            "lengths": jnp.asarray(random.integers(0, self.n_steps, self.batch, np.int32, True)),
            "resets": jnp.asarray(random.random(sequences) < 0.1),
            "h0": uniform(1, self.batch, n),
        }
        leak = {"leak": options[self.leak]} if self.leak in options else {}
        options = leak | {name: options[name] for name in OPTIONS if getattr(self, name)}
        x = uniform(2, *sequences, self.n_features)
        return params, x, options, (tangents,) if self.kind in (JVP, PRODUCT) else ()

    def program(self, package: Any) -> Program:
        """The call by a package like jaxrnn, or by the scan if it is None."""
        function = self.by_hand if package is None else self.by_package(package)

        def of_all(params: Any, x: jax.Array, options: Any, tangents: Any) -> Any:
            derivative = OF_LAST[self.kind](lambda params, x: function(params, x, **options))
            # The leaves, as a program waits for the first of them.
            return tuple(jax.tree.leaves(derivative(params, x, *tangents)))

        arguments = self.arguments()
        if self.over == "params":
            of_all = jax.vmap(of_all, in_axes=(0, None, None, 0))
        elif self.over == "x":
            axes = {name: None if name == "leak" else 0 for name in arguments[2]}
            of_all = jax.vmap(of_all, in_axes=(None, 0, axes, None))
        return Program(jax.jit(of_all), arguments)

    def by_package(self, package: Any) -> Callable[..., Any]:
        """The function of parameters, x and options by the package."""
        fixed: dict[str, Any] = {"activation": getattr(jax.nn, self.activation)}
        fixed |= {} if self.rate == "identity" else {"rate": getattr(jax.nn, self.rate)}
        fixed |= {"leak": LEAK} if self.leak == "one number" else {}
        fixed |= {"reset_to": 0.0} if self.resets else {}

        def run(params: Any, x: jax.Array, **options: Any) -> Any:
            function = package.rnn_states if self.every else package.rnn_forward
            h = function(package.RNNParams(*params), x, reverse=self.reverse, **fixed, **options)
            return h.h if self.every else h

        return run

    def by_hand(
        self, params: Any, x: jax.Array, *, leak: Any = LEAK, h0: Any = 0.0, **options: Any
    ) -> jax.Array:
        """The same by the plain scan."""
        wx, wh, b = params
        activation, rate = getattr(jax.nn, self.activation), getattr(jax.nn, self.rate)

        def step(h: jax.Array, now: Any) -> tuple[jax.Array, jax.Array | None]:
            x_t, t, reset, leak_t = now
            start = jnp.where(reset[..., None], 0, h) if self.resets else h
            new = activation(x_t @ wx + rate(start) @ wh + b)
            if self.leak:
                new = start + (leak if leak_t is None else leak_t) * (new - start)
            if self.lengths:
                new = jnp.where((t < options["lengths"])[..., None], new, h)
            return new, new if self.every else None

        times = jnp.arange(self.n_steps) if self.lengths else None
        resets = options["resets"].T if self.resets else None
        inputs = jnp.moveaxis(x, -2, 0), times, resets, leak if self.leak == "each step" else None
        h0 = jnp.broadcast_to(jnp.asarray(h0, x.dtype), (*x.shape[:-2], self.n_nodes))
        last, states = jax.lax.scan(step, h0, inputs, reverse=self.reverse)
        return last if states is None else jnp.moveaxis(states, 0, -2)


def draw(seed: int, number: int) -> Call:
    """The call of this number among those of this seed."""
    random = np.random.default_rng([seed, number])

    def size(most: int) -> int:
        return int(math.exp(random.uniform(0, math.log(most + 1))))

    def one_of(often: dict[Any, float]) -> Any:
        shares = np.array([*often.values()]) / sum(often.values())
        return [*often][random.choice(len(often), p=shares)]

    kind = one_of({**KINDS})
    small = kind in BY_ALL
    rate = one_of({"identity": 16, **dict.fromkeys(FUNCTIONS[:4], 1)})
    currents = rate != "identity"
    over = one_of({None: 5, "params": 2, "x": 3})
    call = Call(
        seed,
        number,
        batch=size(4 if small else 128),
        n_steps=size(500),
        n_features=size(4 if small else 64),
        n_nodes=size(8 if small else 256),
        kind=kind,
        every=not small and one_of({False: 1, True: 1}),
        dtype=one_of({"float32": 3, "float64": 1}),
        activation="identity"
        if currents
        else one_of({"tanh": 3, **dict.fromkeys(FUNCTIONS[1:], 1)}),
        rate=rate,
        leak=one_of({None: 0 if currents else 5, "one number": 2, "each node": 2, "each step": 1}),
        lengths=one_of({False: 1, True: 1 if over == "x" else 0.4}),
        resets=one_of({False: 6, True: 1}),
        reverse=one_of({False: 6, True: 1}),
        h0=one_of({False: 2, True: 1}),
        over=over,
        n_sets=3 + size(61) if over == "params" else 1,
    )
    while call.seconds() > MAX_SECONDS and call.n_steps > 1:
        call = call._replace(n_steps=call.n_steps // 2)
    return call


def compare_call(call: Call, *, quick: bool) -> Iterator[Row]:
    """Check that jaxrnn and the scan agree, and time both."""
    print(f"\n{call.name}: {call}", flush=True)
    with jax.enable_x64(call.dtype == "float64"):
        programs = {"jaxrnn": call.program(jaxrnn), PLAIN: call.program(None)}
        results = (program() for program in programs.values())
        assert_agreement(call.name, *results, tolerance=TOLERANCES[call.dtype])
        seconds, min_rounds = (0.0, 2) if quick else (0.3, 7)
        rounds = time_calls(programs, seconds=seconds, min_rounds=min_rounds)
    for row in rows_of(rounds):
        print_row(row)
        yield {"part": CALLS, "cell": call.name, "kind": call.kind, **row, "call": str(call)}
