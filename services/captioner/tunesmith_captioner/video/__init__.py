"""What signal analysis can tell of pictures: shots, motion, light, colours."""
