"""`airworthy up`: starts the stack, says where everything is, and stays if asked to."""

from __future__ import annotations

import signal
import time

from airworthy.stack.lifecycle import Say, Stack, down
from airworthy.stack.lifecycle import up as bring_up


def up(say: Say, *, stay: bool = False) -> None:
    """Returns when the stack is healthy; with `stay`, when it has been ended by Ctrl-C or SIGTERM and is down."""
    began = time.monotonic()
    stack = bring_up(say)
    try:
        say(f"\n{_addresses(stack)}\n\nReady after {time.monotonic() - began:.1f} s.")
        if not stay:
            say("Take it down with `make down`; look at it with `make status` and `make logs`.")
            return
        say("Ctrl-C takes everything down.")
        while True:
            signal.pause()
    finally:
        if stay:
            down(say, home=stack.home)


def _addresses(stack: Stack) -> str:
    return "\n".join(
        (
            f"  Airflow   {stack.airflow_url}   user admin, password {stack.password}",
            f"  MLflow    {stack.mlflow_url}",
            f"  Serving   {stack.serving_url}",
            f"  State     {stack.home}",
        )
    )
