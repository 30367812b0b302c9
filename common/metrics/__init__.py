"""How good a map is: pixels, lesions, and how sure one can be of a number."""
