"""What an artifact is packaged for, one target a file."""
