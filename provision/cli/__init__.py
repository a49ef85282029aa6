"""What a person types and sees: the program, its tasks, the screen, the pages of ``explain``."""
