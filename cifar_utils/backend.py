"""The first import of Keras, without TensorFlow's messages; and the choice of precision."""

import contextlib
import logging
import os
from pathlib import Path

from cifar_utils.errors import InputError, check_count, known_name


@contextlib.contextmanager
def _stderr_silenced():
    """Discard what goes to file descriptor 2: TensorFlow logs there before it reads its level."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


try:
    with _stderr_silenced():
        import keras
except (ImportError, ValueError) as error:
    chosen = os.environ.get("KERAS_BACKEND", "that keras.json names")
    raise InputError(
        f"Keras backend {chosen} can't be used ({error}); unset KERAS_BACKEND, or set it to "
        "tensorflow, jax or torch, whichever is installed"
    ) from error

# These override the user's keras.json.
keras.config.set_image_data_format("channels_last")
keras.config.set_floatx("float32")

# TensorFlow warns of repeated tracing, which is normal where several models are trained.
logging.getLogger("tensorflow").setLevel(logging.ERROR)

PRECISIONS = ("auto", "float32", "mixed_bfloat16")


def set_random_seed(seed: int) -> None:
    """Seed Python, NumPy and the backend, as ``keras.utils.set_random_seed`` does, but quietly.

    Keras also imports and seeds TensorFlow where it is installed, whatever the backend.

    Raises
    ------
    InputError
        Where the seed is not of 32 bits.

    """
    seed = check_count("seed", seed, "at least 0, at most 4294967295")
    with _stderr_silenced():
        keras.utils.set_random_seed(seed)


def choose_precision(precision: str = "auto") -> str:
    """The name of Keras's dtype policy; ``"auto"`` is mixed bfloat16 where that is fast.

    It is fast on x86 with AVX-512 BF16 or AMX under TensorFlow, and on NVIDIA GPUs of compute
    capability 8 or later.

    Raises
    ------
    InputError
        Where ``precision`` is neither ``"auto"`` nor ``"float32"`` nor ``"mixed_bfloat16"``.

    """
    if known_name("unknown precision", precision, PRECISIONS) != "auto":
        return precision
    capabilities = gpu_capabilities()
    if capabilities:
        fast = all(capability >= 8 for capability in capabilities)
    else:
        fast = keras.backend.backend() == "tensorflow" and processor_has_bfloat16()
    return "mixed_bfloat16" if fast else "float32"


@contextlib.contextmanager
def dtype_policy(precision: str):
    """Layers made in the block compute in ``precision``; see :func:`choose_precision`."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(choose_precision(precision))
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def gpu_capabilities() -> list[float]:
    """The compute capability of each NVIDIA GPU that the backend sees."""
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        count = torch.cuda.device_count()
        return [float(torch.cuda.get_device_capability(i)[0]) for i in range(count)]
    if backend == "jax":
        import jax

        return [
            float(getattr(d, "compute_capability", 0)) for d in jax.devices() if d.platform == "gpu"
        ]
    import tensorflow as tf

    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return [float(detail.get("compute_capability", (0,))[0]) for detail in details]


def processor_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16; False outside of Linux, where it is not known."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:  # not Linux
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
