"""Walk-forward backtests: training and judging as of past dates, scored on what came after; nothing is promoted.

`runs` is what one run of the training DAG does, `replay` lets the gates decide over such runs in order of time,
`comparison` says by how much one policy is better than another, and `page` and `command` show it.
"""
