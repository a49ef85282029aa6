"""What each operation consists of, as a plan: steps, changes and gates. A module for each task."""
