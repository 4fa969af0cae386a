"""The schema contract of raw data: learnt once, reviewed under `config/contracts/`, then enforced by ingest.

A DAG parse reaches `policy` only; nothing there or here imports a heavy library.
"""
