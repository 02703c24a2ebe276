"""Settings that hold for every test."""

import os
from collections.abc import Iterator
from typing import Any

import jax
import pytest
from hypothesis import settings

# Compiling takes most of the time, so most of LLVM's optimizations are left out, but none of XLA's
# own. `JAX_DISABLE_MOST_OPTIMIZATIONS=0 python -m pytest` compiles as users and the benchmark do.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
jax.config.update(
    "jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"
)
# Up to jax 0.10 XLA has two ways to compile fusions, of which the older one takes a third of the
# time. Later versions refuse the flag.
if jax.__version_info__ < (0, 11) and os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1":
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

# On GPUs the default drops bits of float32, which no tolerance of these tests allows for.
jax.config.update("jax_default_matmul_precision", "highest")

# Hypothesis registers a profile `ci` too, so this one states every setting that it could inherit.
settings.register_profile("dev", max_examples=30, deadline=None)
fixed: Any = {"deadline": None, "derandomize": True, "database": None, "print_blob": True}
settings.register_profile("ci", max_examples=20, **fixed)
settings.register_profile("brief", max_examples=10, **fixed)
settings.register_profile("long", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
)


@pytest.fixture(autouse=True, scope="session")
def strict_promotion() -> Iterator[None]:
    """Refuse implicit promotion of dtypes and ranks, on which the package must not rely."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def usual_promotion() -> Iterator[None]:
    """Promote dtypes and ranks as JAX does by default, for which users write their code."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
