"""Several tasks in one run."""
