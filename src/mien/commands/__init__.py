"""The commands of ``mien``, a module each: arguments in, one call of the library, results out."""
