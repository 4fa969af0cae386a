"""Runs Great Expectations on a dataset of any size, and says which rows fail at a bounded cost.

Names, arguments, verdicts and results are Great Expectations' own; it is asked which metrics an
expectation needs, and judges what it is given. The metrics are computed by DuckDB: all that can be in
one pass over the columns concerned, the others in a pass each, in bounded memory.
"""

from airworthy.expectations.check import run
from airworthy.expectations.outcome import MASK, Outcome

__all__ = ["MASK", "Outcome", "run"]
