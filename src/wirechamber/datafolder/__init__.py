"""The data folder as a whole: whether its files belong together, and what is done with all of them at once."""
