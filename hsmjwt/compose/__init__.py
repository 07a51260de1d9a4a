"""The composition root: picks concrete classes; imports of what costs time stand inside the functions."""
