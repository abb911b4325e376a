"""One process of a search: ``python -m cifar_utils.tuning.worker FOLDER [CORES]``.

Which one it is, keras-tuner reads from its own variables: none, and it searches alone;
``KERASTUNER_ORACLE_IP``, ``KERASTUNER_ORACLE_PORT`` and a ``KERASTUNER_TUNER_ID`` that has "chief"
in it, and it hands out trials; another ``KERASTUNER_TUNER_ID``, and it trains what it is handed.
It ends with its standard input, that is with the process that started it.
"""

import os
import signal
import sys
import threading
from pathlib import Path


def main(folder: Path, cores: str = "") -> int:
    """Search; return the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches whoever started it, and ends it
    threading.Thread(target=_end_with_input, daemon=True).start()
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})

    from cifar_utils.parameters import InputError
    from cifar_utils.tuning.oracles import Trials, kt
    from cifar_utils.tuning.study import BAD_INPUT, read_study

    try:
        study = read_study(folder)
        data = None if "chief" in os.environ.get("KERASTUNER_TUNER_ID", "") else study.load()
        Trials(study, data, folder).search()
    except (InputError, kt.errors.FatalError) as error:
        cause = error.__cause__ if isinstance(error, kt.errors.FatalError) else error
        if not isinstance(cause, InputError):
            raise
        print(cause, file=sys.stderr)
        return BAD_INPUT
    return 0


def _end_with_input() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
