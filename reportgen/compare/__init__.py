"""Two reports -> what changed. Works on `Metric` and `Comparable` values; never imports torch."""
