"""Real processes: how they end, what they leave on the disk, and several that belong together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import jax_ranges as jr

PROGRAM = """
import sys, time
import jax, jax.numpy as jnp
import jax_ranges as jr

net = jr.Net(lambda x: x + x, dump_file=sys.argv[1])
for x in (1.0, -2.0):
    net(jnp.float32(x))
"""


# A process in the background of a script, as CI's may be, starts with ctrl-C switched off.
CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


def start(code: str, *args: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CTRL_C + textwrap.dedent(code), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "default"} | environment,
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def assert_whole(file: Path) -> None:
    found = jr.load(file)["add"]
    assert (found.min, found.max) == (-4, 2)


@pytest.mark.parametrize("name", ["r.txt", "r.json", "r.csv"])
def test_the_end_of_a_program_writes_the_total(tmp_path, name):
    code, out, err = finished(start(PROGRAM, tmp_path / name))
    assert (code, out, err) == (0, "", "")
    assert_whole(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_exception_that_nobody_catches_leaves_the_dump(tmp_path):
    code, _, err = finished(start(PROGRAM + "1 / 0\n", tmp_path / "r.json"))
    assert code == 1 and err.strip().endswith("ZeroDivisionError: division by zero")
    assert_whole(tmp_path / "r.json")


def test_ctrl_c_leaves_the_dump(tmp_path):
    process = start(PROGRAM + "print('ready', flush=True)\ntime.sleep(60)\n", tmp_path / "r.json")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    code, _, err = finished(process)
    assert code != 0 and "KeyboardInterrupt" in err
    assert_whole(tmp_path / "r.json")


def test_ctrl_c_during_calibrate_goes_on_with_what_was_seen(tmp_path):
    program = """
    import sys, time
    import jax.numpy as jnp
    import jax_ranges as jr
    def batches():
        yield jnp.float32(1)
        yield jnp.float32(-2)
        print("ready", flush=True)
        time.sleep(60)
    with jr.Net(lambda x: x + x, dump_file=sys.argv[1]) as net:
        print(net.calibrate(batches())["add"])
    """
    process = start(program, tmp_path / "r.json")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    code, out, _ = finished(process)
    assert code == 0 and out == "Range(min=-4.0, max=2.0, nan=False)\n"
    assert_whole(tmp_path / "r.json")


def test_a_signal_handler_may_close_the_net(tmp_path):
    program = """
    import signal, sys
    import jax.numpy as jnp
    import jax_ranges as jr
    net = jr.Net(lambda x: x + x, dump_file=sys.argv[1], dump_every=3)
    def preempted(*_):
        net.close()
        sys.exit(7)
    signal.signal(signal.SIGTERM, preempted)
    for i in range(10**9):
        net(jnp.float32([1, -2][i % 2]))
        if i == 100:
            print("ready", flush=True)
    """
    process = start(program, tmp_path / "r.json")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.terminate()
    code, _, err = finished(process)
    assert code == 7, err
    assert_whole(tmp_path / "r.json")


def test_killed_in_the_middle_of_a_dump_the_old_file_stays_whole(tmp_path):
    stuck = """
    import os
    net.dump()
    def fsync(handle):
        print("writing", flush=True)
        time.sleep(60)
    os.fsync = fsync
    net(jnp.float32(1000))
    net.dump()
    """
    process = start(PROGRAM + textwrap.dedent(stuck), tmp_path / "r.json")
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    process.kill()
    assert finished(process)[0] == -signal.SIGKILL
    assert_whole(tmp_path / "r.json")


FORKING = """
import multiprocessing, os, sys, threading, warnings
warnings.simplefilter("ignore")  # JAX's, that it cannot run in a fork
import jax, jax.numpy as jnp
import jax_ranges as jr

net = jr.Net(lambda x: x + x, dump_file=sys.argv[1], dump_every=int(sys.argv[2]) or None)
for x in (1.0, -2.0):
    jax.block_until_ready(net(jnp.float32(x)))

def attempts():
    for use in (net.get_info, net.dump, net.dump_and_reset, lambda: net(3.0), lambda: net["add"]):
        try:
            use()
        except RuntimeError as error:
            assert "is a fork" in str(error), error
        else:
            raise AssertionError(f"{use} did something in a fork")
    print("refused", repr(net), flush=True)
"""

# How forked processes end; JAX, where it has been used, may crash in the end of any.
ENDS = {
    "returns": "sys.exit(0)",
    "uses it": "attempts(); sys.exit(0)",
    "closes it": "net.close(); net.close(); sys.exit(0)",
    "leaves it": "with net: sys.exit(0)",
    "drops it": "del net; import gc; gc.collect(); sys.exit(0)",
    "has a thread": "t = threading.Thread(target=attempts); t.start(); t.join(); sys.exit(0)",
}
IN_A_FORK = "refused jr.Net(<lambda>, observing)"
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")


@needs_fork
@pytest.mark.parametrize("dump_every", [pytest.param(0, marks=pytest.mark.slow), 100])
def test_forked_processes_end_and_leave_the_files_alone(tmp_path, dump_every):
    children = "\n".join(
        f"pid = os.fork()\nif pid == 0:\n  {end}\nos.waitpid(pid, 0); print(os.listdir(folder))"
        for end in ENDS.values()
    )
    program = f"{FORKING}\nfolder = os.path.dirname(sys.argv[1])\n{children}\nnet.close()"
    code, out, _ = finished(start(program, tmp_path / "r.json", dump_every))
    assert code == 0
    assert [line for line in out.splitlines() if line != IN_A_FORK] == ["[]"] * len(ENDS)
    assert out.count(IN_A_FORK) == 2
    assert_whole(tmp_path / "r.json")


@needs_fork
def test_workers_that_multiprocessing_forks_have_no_part_in_a_net(tmp_path):
    program = f"""{FORKING}
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(len, ["a", "bc"]))
worker = multiprocessing.get_context("fork").Process(target=attempts)
worker.start()
worker.join()
print(worker.exitcode, os.listdir(os.path.dirname(sys.argv[1])), flush=True)
"""
    code, out, _ = finished(start(program, tmp_path / "r.json", 100))
    assert (code, out.splitlines()) == (0, ["[1, 2]", IN_A_FORK, "0 []"])
    assert_whole(tmp_path / "r.json")


def test_a_full_disk_is_reported_once_and_the_run_goes_on(tmp_path):
    full = """
    import resource, signal, sys
    import jax.numpy as jnp
    import jax_ranges as jr
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    net = jr.Net(lambda x: x + x, dump_file=sys.argv[1], dump_every=1)
    net(jnp.float32(1))
    net._dumps._flush()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))  # what a full disk looks like
    for x in (-2.0, 0.0, 0.5):
        net(jnp.float32(x))
        net._dumps._flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    net(jnp.float32(0.25))
    print(net.get_info(total=True)["add"])
    """
    code, out, err = finished(start(full, tmp_path / "r.json"))
    assert code == 0 and out == "Range(min=-4.0, max=2.0, nan=False)\n", err
    assert err.count("RuntimeWarning") == 1 and "File too large" in err and "goes on" in err
    assert {path.name for path in tmp_path.iterdir()} == {"r.json", "r_1.json", "r_5.json"}
    assert_whole(tmp_path / "r.json")
    found = jr.load(tmp_path / "r_5.json")["add"]
    assert (found.min, found.max) == (-4, 1)


def test_memory_does_not_grow_over_100_000_calls():
    soak = """
    import jax, jax.numpy as jnp, numpy as np
    import jax_ranges as jr
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096 / 2**20
    net, x = jr.Net(jax.jit(lambda x: jnp.sin(x) + 1)), jnp.ones(8)
    def calls(count):
        for _ in range(count):
            y = net(x)
        y.block_until_ready()
        return resident()
    before, after = calls(20_000), calls(100_000)
    print(after - before)
    """
    if not Path("/proc/self/statm").exists():
        pytest.skip("memory is read from /proc")
    code, out, err = finished(start(soak))
    assert code == 0, err
    assert float(out) < 4, f"grew by {out} MiB"  # 42 bytes a call would be 4 MiB


TWO = """
import json, os, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
import jax_ranges as jr

address, index, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.distributed.initialize(address, num_processes=2, process_id=index)
assert jax.device_count() == 2 and jax.local_device_count() == 1

mesh = jax.make_mesh((2,), ("a",))
local = np.full((1, 4), [-1.0, 5.0][index], np.float32)
x = jax.make_array_from_process_local_data(NamedSharding(mesh, P("a")), local)

net = jr.Net(lambda x: x + x, dump_file=os.path.join(folder, f"{index}.json"))
for _ in range(3):
    net(x)
assert [p.step._cache_size() for p in net._recorder._programs] == [1]
found = net.get_info()["add"]
print("global", float(found.min), float(found.max))

def own(x):
    return x * x + (x if index else -x) if index else x * x

_, ranges = jr.ranges(own)(jnp.float32([3, 4][index]))
merged = jr.merge_processes(ranges)
print("merged", {name: (float(r.min), float(r.max)) for name, r in merged.items()})
net.close()
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def test_two_processes_see_the_same_ranges(tmp_path):
    address = f"localhost:{free_port()}"
    environment = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    both = [start(TWO, address, index, tmp_path, **environment) for index in range(2)]
    ends = [finished(process) for process in both]
    for code, out, err in ends:
        assert code == 0, err[-3000:]
        assert [line for line in out.splitlines() if not line.startswith("[Gloo]")] == [
            "global -2.0 10.0",
            "merged {'mul': (9.0, 16.0), 'add': (20.0, 20.0)}",
        ]
    first, second = (jr.load(tmp_path / f"{index}.json") for index in range(2))
    assert first["add"] == second["add"] and np.isfinite((first | second)["add"].max)
