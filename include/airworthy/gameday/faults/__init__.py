"""One fault in each file; `airworthy.gameday.Fault` says what it has to have."""
