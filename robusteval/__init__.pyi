from robusteval.api.comparing import compare as compare
from robusteval.api.evaluation import evaluate as evaluate
from robusteval.api.images import attack as attack
from robusteval.api.images import corrupt as corrupt
from robusteval.api.running import load_results as load_results
from robusteval.api.running import run as run

__all__ = ["attack", "compare", "corrupt", "evaluate", "load_results", "run"]
