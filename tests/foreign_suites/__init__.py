"""Test suites of other packages, run through jax_ranges.

Each test is run plainly, then once for each tool with all that it jits or transforms measured;
what passes plainly has to pass each time. See `__main__` for how to run it.

This package is also loaded by pytest processes in which `tests` is the other package's folder,
so it imports nothing of the folder above.
"""
