"""Networks that MONAI does not have, and the container that makes one checkpoint of a method's networks."""
