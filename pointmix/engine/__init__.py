"""Training, evaluation and the files of a run, whatever its task."""
