"""The seven stages, one module each: ingest, validate, process, train, evaluate, deploy, monitor."""
