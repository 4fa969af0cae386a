"""Airworthy: the machine-learning and data logic of the continuous training loop.

Nothing in this package imports Airflow; `plugins/airworthy_airflow` translates it into operators.
"""
