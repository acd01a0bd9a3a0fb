"""What the notebooks use beside the package: their order, widgets, exercises and trainings in several processes."""
