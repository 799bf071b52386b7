"""Questions that take several runs: the highest rate that meets a goal, the best parameters."""
