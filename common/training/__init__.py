"""Stages that train the parts of a container, one after the other, and the thresholds that end them."""
