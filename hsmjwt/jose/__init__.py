"""Makes the bytes of a JSON Web Token; standard library only, no I/O and no clock."""
