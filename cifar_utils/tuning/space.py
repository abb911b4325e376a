"""What is tuned, and between which bounds: ``"learning_rate(0.01, 1), width(8, 32)"``."""

from dataclasses import dataclass

from cifar_utils.parameters import InputError, parse_calls


@dataclass(frozen=True, repr=False)
class Range:
    """The values that one of a search's parameters may take, bounds included.

    Attributes
    ----------
    log
        Whether values are drawn evenly on a logarithmic scale rather than a linear one.
    step
        Between whole numbers; 0 for numbers of any kind.

    """

    name: str
    low: float
    high: float
    log: bool = False
    step: int = 0

    def __repr__(self) -> str:
        scale = ", on a logarithmic scale" if self.log else ""
        steps = f", in steps of {self.step}" if self.step > 1 else ""
        return f"{self.name} from {self.low:g} to {self.high:g}{scale}{steps}"

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InputError(f"space: {self} is empty; give the lower bound first")
        if self.log and self.low <= 0:
            raise InputError(f"space: {self} needs bounds above 0")

    def value(self, drawn: float) -> float:
        """What is drawn, in three digits: as a table shows it, and whatever carried it here.

        (Between keras-tuner's chief and its workers, numbers travel in 32 bits.)
        """
        return round(drawn) if self.step else float(f"{drawn:.3g}")


def learning_rate(low: float, high: float) -> Range:
    """The step size's peak."""
    return Range("learning_rate", low, high, log=True)


def weight_decay(low: float, high: float) -> Range:
    """See :func:`~cifar_utils.training.make_optimizer`."""
    return Range("weight_decay", low, high, log=True)


def dropout(low: float, high: float) -> Range:
    """The architecture's option of that name, a rate."""
    if not 0 <= low < high < 1:
        raise InputError(f"space: dropout({low:g}, {high:g}) is no range in [0, 1)")
    return Range("dropout", low, high)


def width(low: int, high: int, step: int = 1) -> Range:
    """The architecture's option of that name, a number of channels."""
    if not (low >= 1 and step >= 1):
        raise InputError(f"space: width({low}, {high}, {step}) takes whole numbers from 1 on")
    return Range("width", low, high, step=step)


RANGES = {function.__name__: function for function in (learning_rate, weight_decay, dropout, width)}


def parse_space(text: str) -> dict[str, Range]:
    """The ranges by name that a text such as ``"learning_rate(0.01, 1), dropout(0, 0.5)"`` gives.

    Raises
    ------
    InputError
        Where it does not parse, a name is unknown or there twice, or a range is empty.

    """
    calls = parse_calls("space", text, RANGES)
    names = [call.name for call in calls]
    if not names or len(set(names)) < len(names):
        raise InputError(f"space is {text!r}; it takes one or more of {', '.join(RANGES)}, once")
    for call in calls:
        if not {"low", "high"} <= call.options.keys():
            raise InputError(f"space: {call} lacks a bound; write {call.name}(low, high)")
    return {call.name: call() for call in calls}
