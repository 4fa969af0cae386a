"""Runs Great Expectations on a dataset of any size, and says which rows fail at a bounded cost.

Names, arguments, verdicts and results are Great Expectations' own; it is asked which metrics an
expectation needs, and judges what it is given. The metrics are computed by DuckDB: all that can be in
one pass over the columns concerned, the others in a pass each, in bounded memory.

What SQL cannot say with exactly the same meaning falls back to Great Expectations on pandas, on a frame
of the expectation's own columns, or of all columns if it has a `row_condition` or is not one of Great
Expectations' own:

- always `expect_column_values_to_be_dateutil_parseable`, `..._to_be_json_parseable`,
  `..._to_match_json_schema`, `..._to_match_strftime_format` and `expect_column_kl_divergence_to_be_less_than`;
- regular expressions with look-around, back-references, word boundaries or flags;
- regular expressions and lengths of what is not text, sets of times without a zone, comparisons of
  columns of different types, of text with text, orders of what is neither number nor time, and
  statistics of what is neither, where pandas has its own ideas or an error to raise;
- a `row_condition` in the words of pandas, or about booleans or times;
- expectations and metrics of your own.

Of the kinds that Great Expectations computes in SQL only, the four about LIKE patterns work here; the
others are errors, as there. A float that is not a number is missing, as pandas has it. Two things differ
on purpose: the least and greatest text are found where some is missing, which pandas refuses, and
columns whose names differ in case only, or texts that differ after a zero byte, are not mixed up.
"""

from airworthy.expectations.check import run
from airworthy.expectations.outcome import Outcome

__all__ = ["Outcome", "run"]
