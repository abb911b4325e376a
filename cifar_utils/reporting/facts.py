"""The main facts of a record, in words for pages and terminals."""

from cifar_utils.runs.record import RunRecord
from cifar_utils.text import compact, duration, interval, percent


def record_facts(record: RunRecord) -> list[tuple[str, str, str]]:
    """The results of a run: (label, value, detail), such as an accuracy and its 95% interval."""
    scores, model = record.scores.get("test", {}), record.model
    facts = []
    for key, label in (("top1", "test top-1"), ("top5", "test top-5")):
        says_something = key == "top1" or len(scores.get("per_class", {})) > 5
        if scores.get(key) is not None and says_something:
            facts.append((label, percent(scores[key]), interval(scores[f"{key}_interval"])))
    if model.get("parameters"):
        facts.append(("parameters", compact(model["parameters"]), ""))
    if model.get("flops"):
        facts.append(("FLOPs an image", compact(model["flops"]), ""))
    if record.history:
        chosen = "val_accuracy" in record.history[-1]
        detail = f"best: {record.best_epoch}" if chosen else ""
        detail += f"; stopped: {record.stopped}" if record.stopped else ""
        stretches = len(record.trained_by)
        detail += f"; computed in {stretches} stretches" if stretches > 1 else ""
        facts.append(("epochs", str(len(record.history)), detail))
    if record.seconds.get("total"):
        facts.append(("time", duration(record.seconds["total"]), ""))
    return facts
