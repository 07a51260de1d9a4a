"""The questions of the bench, a file each; every one has `measure(place)`, which returns its rows."""
