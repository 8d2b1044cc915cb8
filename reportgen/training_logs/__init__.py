"""Reads training logs into `LogRun`s: one reader per format; `log_set` for a manifest's logs."""
