"""The graphs as data: nothing merged, nothing left out, the same ids in every build."""
