"""robusteval: the four accuracies of an image classifier, on the same predictions, with intervals."""
