"""What the notebooks use beside the package: explorers, exercises and launched trainings."""
