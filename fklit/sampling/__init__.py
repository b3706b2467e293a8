"""What steering and corrected guidance share: settings, one run around a pipeline call, rewards, results, the task."""
