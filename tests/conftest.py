"""Settings of the whole suite."""

import gc
import os
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

# All that JAX traced and compiled stays, and the collector would look through it again and again.
gc.set_threshold(20_000, 20, 20)

MEMORY = Path("/proc/self/statm")
GROWTH = (1 << 30) // os.sysconf("SC_PAGE_SIZE")


class Memory:
    """Drops what was compiled when the process has grown by a gigabyte.

    Each small executable also takes some of the memory maps that Linux allows a process (65530).
    """

    def __init__(self) -> None:
        self.most = self.pages() + GROWTH

    def pages(self) -> int:
        return int(MEMORY.read_text().split()[1]) if MEMORY.exists() else 0

    def trim(self) -> None:
        if self.pages() > self.most:
            jax.clear_caches()
            gc.collect()
            self.most = self.pages() + GROWTH


@pytest.fixture(scope="session")
def memory():
    return Memory()


@pytest.fixture(autouse=True)
def trimmed(memory):
    yield
    memory.trim()


@pytest.fixture
def x64():
    """64-bit types for one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
