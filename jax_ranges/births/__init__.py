"""Births: where a NaN or an infinity comes from that nothing before it held.

`checks` says which equations can make one, and how that is told from passing one on; `first` is
what is kept of it; `statistic` measures it; `review` decides, in each iteration of a loop, what
needs the ranges of operands, and how far it gets; `genealogy` has what is known before the
program runs; `fate` and `explain` read it on the host; `report` shows it.
"""
