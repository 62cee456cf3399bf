"""Settings of the whole suite."""

from pathlib import Path

import hypothesis
import jax
import pytest

hypothesis.settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
)
hypothesis.settings.load_profile("suite")

# Before anybody imports it, so that its assertions show what differs as those of tests do.
pytest.register_assert_rewrite("tests.compare")

# Benchmarks are run by hand; the cases for eight devices by test_eight_devices.py, in a process
# that has them. (Otherwise --doctest-modules would import them all.)
collect_ignore = ["benchmarks"] + ([] if jax.device_count() == 8 else ["eight_devices"])

MAPS = Path("/proc/self/maps")


@pytest.fixture(autouse=True)
def few_memory_maps():
    """Each small executable takes some of the memory maps that Linux allows a process (65530)."""
    yield
    if MAPS.exists() and len(MAPS.read_bytes().splitlines()) > 20_000:
        jax.clear_caches()


@pytest.fixture
def x64():
    """64-bit types for one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
