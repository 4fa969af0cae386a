"""The prediction service: one process that answers for every pipeline with its ledger's champion."""
