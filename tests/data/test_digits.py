from cifar_utils.data import load_dataset


def test_digits_are_those_of_the_published_runs():
    assert load_dataset("digits").fingerprint == (
        "c93ba1e7865aa0a8cab7f4b2acfc977b70f506c82767118e6fe23b2605083a4c"
    )
