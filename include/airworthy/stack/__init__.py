"""The embedded stack of `make up`: PostgreSQL, MLflow, Airflow's four components and serving.

One process manager (Supervisor) runs them all on loopback; every byte of their state lives in one folder.
"""

from airworthy.stack.lifecycle import Stack, down, find, running_stack, up
from airworthy.stack.ports import Ports, free_ports

__all__ = ["Ports", "Stack", "down", "find", "free_ports", "running_stack", "up"]
