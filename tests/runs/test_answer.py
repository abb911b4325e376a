"""A run's answer is computed from its record, and says where the run is too small."""

import pytest

from cifar_utils.runs.answer import answer


@pytest.fixture
def record(make_record):
    def record(top1=0.9, trials=(), validation=5000, architecture="resnet20", **scores):
        test = {"n": 10_000, "top1": top1, "top1_interval": [top1 - 0.01, top1 + 0.01]}
        return make_record(
            dataset={"name": "cifar10", "train": 45_000, "validation": validation},
            model={"architecture": architecture},
            scores={"test": test | {"per_class": dict.fromkeys("abcde")} | scores},
            trials=[
                {"name": name, "val_accuracy": share, "epochs": epochs, "values": {"width": 8}}
                for name, share, epochs in trials
            ],
        )

    return record


def test_one_training_is_set_beside_the_best_figure_reported_of_its_network(record):
    told = answer(record(0.90))
    assert "90.0% of 10,000 test images of cifar10 correctly, after 1 epoch of 45,000" in told
    assert "Others report 92.60% (chenyaofo, pytorch-cifar-models, 200 epochs) for resnet20" in told
    hundred = record(0.69, architecture="preact")
    hundred.model["parameters"] = 1_585_828
    hundred.dataset["name"], hundred.scores["test"]["top5"] = "cifar100", 0.916
    told = answer(hundred)
    assert (
        "Its top-5 accuracy is 91.6%. Others report top-5 88.40% (report D, 100 epochs) for preact"
        in told
    )
    assert "report" not in answer(record(architecture="no such network"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"unsure": 0.4}, ", by 6 views of the least certain 40%,"),
        ({"unsure": 0.004}, ", by 6 views of the least certain 0.4%,"),
        ({"unsure": 0.996}, ", by 6 views of the least certain 99.6%,"),
        ({"unsure": 1.0}, ", by 6 views of each,"),
        ({"unsure": 0.0}, ","),
        ({"views": 6}, ", by 6 views of each,"),  # runs before `unsure`
        ({"views": 2}, ", by 2 views of each,"),
    ],
)
def test_views_of_an_image_are_told(record, given, told):
    seen = record()
    seen.parameters.update(given)
    assert f"correctly{told} after" in answer(seen)


@pytest.mark.parametrize(
    ("size", "limit", "told"),
    [(1_973_945, None, True), (90_957, None, False), (1_973_945, 900, False)],
)
def test_what_is_reported_of_another_size_or_of_more_images_is_not_told(record, size, limit, told):
    one = record(0.90, architecture="airbench(width=0.21)")
    one.model["parameters"], one.parameters["train_limit"] = size, limit
    assert ("Others report 94.01%" in answer(one)) == told


def test_near_chance_nothing_is_claimed(record):
    told = answer(record(0.25, trials=[("one", 0.25, 2), ("other", 0.2, 2), ("lost", None, 0)]))
    assert "too small to tell" in told
    assert "20.0%" in told
    assert "too small to tell" in answer(record(0.60, per_class=dict.fromkeys("ab")))
    assert "70.0% of 10,000" in answer(record(0.70, per_class=dict.fromkeys("ab")))
    rare = {"per_class": dict.fromkeys("ab"), "most_frequent": 0.9}
    assert "guessing one class for all comes to 90.0%" in answer(record(0.92, **rare))
    assert "97.0% of 10,000" in answer(record(0.97, **rare))


def test_trainings_are_compared_even_if_the_tested_network_is_near_chance(record):
    told = answer(record(0.2, trials=[("residual", 0.9, 2), ("plain", 0.2, 2)]))
    assert "“residual” is the best of 2 trainings" in told
    assert told.endswith("(95% interval 19.0 to 21.0%). Guessing one class for all comes to 20.0%.")
    assert "Guessing" not in answer(record(0.9, trials=[("residual", 0.9, 2), ("plain", 0.2, 2)]))


def test_trainings_that_ended_early_are_compared_too(record):
    trials = [("wide", 0.5, 1), ("deep", 0.9, 4), ("flat", 0.4, 1)]
    rules = record(trials=trials)
    for trial, why in zip(rules.trials, ("reached 50%", "", "no better"), strict=True):
        trial["stopped"] = why
    rules.history[:] = [{"epoch": epoch} for epoch in (1, 2, 3, 4)]
    told = answer(rules)
    assert "“deep” is the best of 3 trainings of 1 to 4 epochs each" in told
    assert "target accuracy or for lack of progress: “wide” and “flat”." in told
    assert "Trained again" not in told
    rules.trials[1].update(stopped="no better", epochs=1)
    assert "3 trainings of 1 epoch each" in answer(rules)


@pytest.mark.parametrize(
    ("images", "second", "tells"), [(5000, 0.80, True), (5000, 0.889, False), (100, 0.80, False)]
)
def test_the_best_of_several_is_told_from_the_others_if_the_images_are_enough(
    record, images, second, tells
):
    trials = [("first", 0.5, 2), ("best", 0.89, 2), ("second", second, 2), ("shorter", 0.95, 1)]
    few = answer(record(trials=trials, validation=images)).split("\n\n")[0]
    assert "“best” is the best of 3 trainings of 2 epochs each (one seed)" in few
    gain = f"“second” by {100 * (0.89 - second):.1f} points (95% interval "
    assert gain in few
    assert (f"It is ahead of {gain}-" in few) != tells
    trials += [("third", 0.45, 2), ("worst", 0.4, 2)]
    told = answer(record(trials=trials, validation=images))
    lead, more = told.split("\n\n")
    assert "“best” is the best of 5 trainings of 2 epochs each (one seed)" in lead
    assert f"it classifies 89.0% of {images:,} validation images correctly" in lead
    assert "It is better than “first” by 39.0 points (95% interval +" in lead
    assert "and “worst” by 49.0 points" in lead
    assert ("The best is better than “second” by 9.0 points" in more) == tells
    assert (f"It is ahead of {gain}-" in lead) != tells


def test_trainings_that_diverged_are_not_compared(record):
    trials = [("at once", None, 0), ("soon", 0.3, 1), ("worse", 0.5, 9), ("best", 0.9, 9)]
    several = record(trials=trials)
    several.trials[1]["diverged"] = True
    told = answer(several)
    assert "2 trainings of 9 epochs each" in told
    assert "because the loss diverged: “at once” and “soon”." in told
    del several.trials[2]
    told = answer(several)
    assert "trainings" not in told, "the one that is left has none beside it"
    assert "because the loss diverged: “at once” and “soon”." in told


def test_a_search_whose_defaults_diverged_compares_its_whole_trainings(record):
    rows = [("the defaults", None, 0), ("1", 0.4, 1), ("2", 0.46, 1), ("3", 0.8, 9), ("4", 0.85, 9)]
    told = answer(record(trials=rows))
    assert "Trial 4 (width 8) is the best of 2 trainings of 9 epochs each" in told
    assert "because the loss diverged: “the defaults”" in told


def test_how_well_each_learned_its_training_images_is_told(record):
    both = record(trials=[("plain", 0.6, 2), ("residual", 0.8, 2)])
    for trial, share in zip(both.trials, (0.55, 0.79), strict=True):
        rows = [{"accuracy": 0.1}, {"accuracy": share}]
        trial["history"] = [row | {"val_accuracy": trial["val_accuracy"]} for row in rows]
    assert "in the last epoch: “residual” 79.0% and “plain” 55.0%." in answer(both).split("\n\n")[1]


def test_the_fewest_steps_to_a_target_are_told(record):
    several = record(trials=[("slow", 0.8, 3), ("quick", 0.7, 3), ("never", 0.5, 3)])
    several.parameters.update(target_accuracy=0.6, batch_size=300)
    rows = ([0.1, 0.2, 0.8], [0.1, 0.6, 0.7], [0.1, 0.3, 0.5])
    for trial, shares in zip(several.trials, rows, strict=True):
        trial["history"] = [
            {"epoch": epoch, "accuracy": share, "val_accuracy": share}
            for epoch, share in enumerate(shares, 1)
        ]
    assert "60% is first reached by “quick”, after 300 steps." in answer(several)
    several.parameters["target_accuracy"] = 0.595
    assert "59.50% is first reached by “quick”" in answer(several)


def test_seeds_are_compared_by_their_means_and_in_pairs(record):
    several = record(
        trials=[("none", 0.5, 2), ("flip", 0.6, 2), ("none", 0.3, 2), ("flip", 0.42, 2)]
    )
    several.parameters.update(target_accuracy=0.4, batch_size=300)
    for trial, seed, shares in zip(
        several.trials, (0, 0, 1, 1), ([0.4, 0.5], [0.5, 0.6], [0.2, 0.3], [0.3, 0.42]), strict=True
    ):
        rows = enumerate(shares, 1)
        history = [{"epoch": e, "accuracy": share, "val_accuracy": share} for e, share in rows]
        trial.update(seed=seed, history=history)
    told = answer(several)
    assert "“flip” is the best of 2 ways, each trained for 2 epochs with 2 seeds: on" in told
    assert "average it classifies 51.0% of 5,000 validation images" in told
    # Differences of 10 and 12 points; of two rows, Tukey's interval is Student's: 11 ± 12.706
    ahead = "It is ahead of “none” by 11.0 points (95% interval -1.7 to +23.7)"
    assert f"{ahead}, which may be chance." in told
    assert "The intervals are Tukey's over seeds" in told
    assert "Tested, the first seed: resnet20" in told
    assert "“flip” 51.0% and “none” 40.0%." in told
    assert "40% is first reached by “flip”, after 225 steps on average" in told
    lost = [several.trials[0] | {"name": "lost", "val_accuracy": 0.2, "seed": s} for s in (0, 1)]
    several.trials.extend(lost)
    told = answer(several)
    # One that never learned has no part in the deviation, but is one of three to choose from: the
    # studentized range of one degree of freedom is 26.98, and that of two rows 17.97.
    assert "It is ahead of “none” by 11.0 points (95% interval -8.1 to +30.1)" in told
    assert "better than “lost” by 31.0 points (95% interval +11.9 to +50.1)" in told
    del several.trials[4:]
    several.trials[3]["val_accuracy"] = 0.4001
    assert "better than “none” by 10.0 points (95% interval +9.9 to +10.1)" in answer(several)
    several.trials[3]["val_accuracy"] = 0.4
    told = answer(several)
    assert "It is ahead of “none” by 10.0 points, which may be chance." in told
    assert "There are no intervals: each difference is the same with all seeds." in told
    several.trials.append(several.trials[0] | {"name": "another", "val_accuracy": 0.9})
    assert "the best of 2 ways" in answer(several), "one seed is not compared with several"
    several.trials[3]["diverged"] = True
    assert "on average" not in answer(several), "one that diverged once is not compared"
    several.trials[0]["diverged"] = True
    assert "on average" not in answer(several), "one seed each, but not the same one"


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_training_after_the_comparison_is_told_with_it_but_not_compared(record, epochs):
    trials = [("none", 0.6, 2), ("flip", 0.8, 2), ("for longer", 0.7, epochs)]
    both = record(0.9, trials=trials)
    both.history[:] = [{"epoch": epoch} for epoch in range(1, epochs + 1)]
    both.parameters["augmentation"] = "crop(4), flip"
    told = answer(both)
    assert "“flip” is the best of 2 trainings" in told
    assert "Trained again with “crop(4), flip”, resnet20 classifies 90.0% of 10,000 test" in told
    assert "Tested" not in told


def test_the_best_of_many_is_set_first_against_the_first_and_the_worst(record):
    trials = [("a", 0.5, 2), ("b", 0.8, 2), ("c", 0.6, 2), ("d", 0.4, 2)]
    lead, more = answer(record(trials=trials, validation=5000)).split("\n\n")
    # Two trainings would have +28.2 to +31.8.
    assert "It is better than “a” by 30.0 points (95% interval +27.6 to +32.3), “c” by" in lead
    assert "they allow for the choice of the best of 4, not for other seeds." in more
    trials.append(("e", 0.45, 2))
    lead = answer(record(trials=trials, validation=5000)).split("\n\n")[0]
    assert ") and “d” by 40.0 points" in lead
    assert not {"“c”", "“e”"} & set(lead.split())


def test_the_best_of_a_search_is_set_first_against_the_defaults(record):
    trials = [("defaults", 0.5, 2), *((str(k), k / 10, 2) for k in range(1, 9))]
    searched = record(trials=trials, validation=5000)
    # Only the defaults' trial has a seed of its own.
    searched.parameters["seed"] = searched.trials[0]["seed"] = 7
    told = answer(searched)
    assert told.startswith("Trial 8 (width 8) is the best of 9 trainings")
    lead, more = told.split("\n\n")
    assert "better than “defaults” by 30.0 points (95% interval +27.2 to +32.8)." in lead
    assert "The search chose it by these images" in lead
    assert "than trial 7 (width 8) by 10.0 points" in more
    assert "and 4 more." in more


def test_the_intervals_of_a_search_allow_for_the_trials_that_it_ended_early(record):
    trials = [("the first guess", 0.5, 2), ("1", 0.8, 2), *((str(k), 0.4, 1) for k in (2, 3, 4))]
    searched = record(trials=trials, validation=5000)
    for trial in searched.trials:
        trial["values"] = {"rate": float(trial["name"].replace("the first guess", "9"))}
    told = answer(searched)
    assert told.startswith("Trial 1 (rate 1) is the best of 2 trainings")
    assert "the choice of the best of 5, not for other seeds." in told
    del searched.trials[2:]
    alone = answer(searched)
    assert "The interval is over images, not over other seeds." in alone
    assert "by 30.0 points (95% interval +28.2 to +31.8)" in alone
    assert "by 30.0 points (95% interval +27.5 to +32.4)" in told


def test_a_search_that_found_nothing_better_says_so(record):
    trials = [("the first guess", 0.9, 2), ("1", 0.5, 2), ("2", 0.6, 2)]
    told = answer(record(trials=trials))
    assert told.startswith("“the first guess” is the best of 3 trainings of 2 epochs")
    assert "The search found nothing better." in told


def test_of_equal_trainings_the_best_is_the_one_that_a_search_takes(record):
    equal = record(trials=[("the first guess", 0.9, 2), ("1", 0.9, 2), ("2", 0.9, 2)])
    for trial, loss in zip(equal.trials[1:], (0.4, 0.3), strict=True):
        trial["val_loss"] = loss
    told = answer(equal)
    assert told.startswith("Trial 2 (width 8) is the best of 3 trainings")
    assert "On these images “the first guess” is as good." in told


def test_trials_shorter_than_the_first_guess_are_not_compared_with_it(record):
    told = answer(record(trials=[("the first guess", 0.8, 4), ("1", 0.9, 1), ("2", 0.5, 2)]))
    assert "the best" not in told
    assert "No trial of the search had as many epochs as the first guess" in told
    assert "nothing better" not in answer(record(trials=[("a", 0.9, 2), ("b", 0.5, 2)]))


def test_a_network_of_which_no_top_1_is_reported_says_at_which_k_it_reaches_94_percent(record):
    top_k = [0.3, 0.5, 0.7, 0.8, 0.85, 0.95, 1.0]
    assert "at least 94% from k = 6 on" in answer(record(architecture="report_a(32)", top_k=top_k))


@pytest.mark.parametrize(
    ("top_k", "architecture"),
    [([0.95, 0.99, 1.0], "report_a(32)"), ([0.3, 0.95, 1.0], "no such network")],
)
def test_no_other_k_is_told_above_94_percent_or_of_a_network_without_such_a_report(
    record, top_k, architecture
):
    assert "top-k" not in answer(record(top_k[0], architecture=architecture, top_k=top_k))


@pytest.mark.parametrize(("images", "tells"), [(5000, True), (0, False)])
def test_what_the_base_gains_by_training_on_is_told_from_validation_images(record, images, tells):
    both = record(validation=images)
    both.parameters.update(epochs=5, fine_tune_layers=4, fine_tune_epochs=2)
    both.history[:] = [{"val_accuracy": share} for share in (0.85, 0.88, 0.92, 0.91)]
    told = answer(both)
    assert ("88.0% of 5,000 validation images" in told) == tells
    assert ("92.0%, +4.0 points (95% interval +2.8 to +5.2)" in told) == tells
    both.parameters["fine_tune_augmentation"] = "crop(4), flip"
    assert ("epochs, and from their augmentation, “crop(4), flip”." in answer(both)) == tells
    del both.parameters["fine_tune_epochs"]  # a reader's own notebook may lack it
    assert "The head alone" not in answer(both)


def test_a_network_that_lost_what_it_had_learned_is_told(record):
    several = record(trials=[("plain", 0.19, 2), ("mended", 0.5, 2)] * 2)
    ends = ([0.19, 0.1], [0.4, 0.5], [0.17, 0.19], [0.3, 0.45])
    for trial, seed, shares in zip(several.trials, (0, 0, 1, 1), ends, strict=True):
        history = [{"val_accuracy": share, "accuracy": share} for share in shares]
        trial.update(seed=seed, history=history)
    several.scores["test"]["per_class"] = dict.fromkeys("abcdefghij")
    told = answer(several)
    assert (
        "“plain” lost what it had learned in 1 of 2 trainings: it classifies 10.0% of the "
        "validation images correctly in the last epoch, 19.0% in its best one."
    ) in told
    assert "“mended” lost" not in told
    several.dataset["validation"] = 60  # of so few images such a fall may be chance
    assert "“plain” lost" not in answer(several)
    several.dataset["validation"] = 5000
    several.trials[0]["history"][0]["accuracy"] = 0.1  # it had never learned its training images
    assert "“plain” lost" not in answer(several)
