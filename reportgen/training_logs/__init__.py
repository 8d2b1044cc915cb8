"""Training logs as `LogRun`s: one reader per format, `log_set` for what a manifest names."""
