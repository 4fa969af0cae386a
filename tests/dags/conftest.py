"""Keeps Airflow, which these tests import into their own process, from writing into the user's home."""

from __future__ import annotations

import os
import tempfile

os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airworthy-airflow-")
