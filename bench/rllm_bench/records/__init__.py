"""What a run leaves on disk, and the folder it leaves it in."""
