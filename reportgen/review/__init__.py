"""A report where reviewers look: annotations, the summary of a job, a comment on a pull request."""
