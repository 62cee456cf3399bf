"""The statistics beside `MinMax`, one a file, and what they share.

| file | |
|---|---|
| `exponents`, `histogram` | how values are distributed: by powers of two, in equal bins |
| `moments`, `health`, `absmax` | numbers that sum them up |
| `channels` | any of them for each channel or block |
| `counts` | counts beyond 2**31 without 64-bit types |
| `pooled`, `passes`, `words` | merging many states at once, fast passes, bits of numbers |
"""
