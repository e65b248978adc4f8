"""Four fake CPU devices for every test, before JAX starts; programs compiled once are kept for the next worker and the next run."""

import os
from pathlib import Path

import jax

os.environ["FEDJAX_SIM_CACHE"] = (
    "off"  # commands that tests start keep nothing in the user's folder
)

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_threefry_partitionable", True)
jax.config.update(
    "jax_compilation_cache_dir", str(Path(__file__).parent.parent / ".cache" / "test-programs")
)
jax.config.update("jax_compilation_cache_max_size", 2 * 2**30)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
