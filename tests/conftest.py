"""Settings that hold for every test."""

import os
from collections.abc import Iterator

import jax
import pytest
from hypothesis import settings

# Most of the time goes to compiling. Without what LLVM does to speed programs up it is less; XLA's
# own passes are as ever. `JAX_DISABLE_MOST_OPTIMIZATIONS=0 python -m pytest` compiles as users do,
# and so does the benchmark.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
jax.config.update(
    "jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"
)
# Up to jax 0.10 XLA has two ways to compile fusions. The older one takes a third of the time. Later
# versions do not know the flag, and do not get it.
if jax.__version_info__ < (0, 11) and os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1":
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

# Every field that differs between machines is stated, as hypothesis has a profile `ci` of its own.
settings.register_profile("dev", max_examples=30, deadline=None)
for name, n_examples in (("ci", 20), ("brief", 10)):
    settings.register_profile(
        name,
        max_examples=n_examples,
        deadline=None,
        derandomize=True,
        database=None,
        print_blob=True,
    )
settings.register_profile("long", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
)


@pytest.fixture(autouse=True, scope="session")
def strict_promotion() -> Iterator[None]:
    """The package must not lean on implicit promotion of dtypes or ranks."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
