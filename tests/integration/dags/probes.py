"""A DAG with one task per stage that looks around before the stage's own code would import anything."""

from __future__ import annotations

import os
import sys
from typing import Any

from airflow.sdk import DAG, BaseOperator

STAGES = ("ingest", "validate", "process", "train", "evaluate", "deploy", "monitor")


class ProbeOperator(BaseOperator):
    """Returns which heavy modules a stage still had to import, and what its parent process holds."""

    def execute(self, context: Any) -> dict[str, Any]:
        import importlib

        import psutil

        from airworthy.profile import load_profile

        before = set(sys.modules)
        importlib.import_module(f"airworthy.stages.{self.task_id}")
        for module in load_profile().preload:
            importlib.import_module(module)
        heavy = {module.partition(".")[0] for module in load_profile().preload}
        late = {module.partition(".")[0] for module in set(sys.modules) - before}
        parent = psutil.Process(os.getppid())
        return {
            "imported_late": sorted(heavy & late),
            "parent_threads": parent.num_threads(),
            "parent_sockets": [
                [c.laddr.port, c.raddr.port] for c in parent.net_connections() if c.status == "ESTABLISHED"
            ],
        }


with DAG("probes", schedule=None, tags={"tests"}):
    for stage in STAGES:
        ProbeOperator(task_id=stage)
