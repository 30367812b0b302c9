"""What an engine or MONAI Label calls on a whole image: all of a method's inference, without state."""
