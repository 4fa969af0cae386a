"""Airflow's side of Airworthy: translates stages into operators, and never computes."""
