# What the schema cannot say of speaker encoders: whose voices they heard, and what scores mean.


def corpora_heard(config, encoder):
    """The corpora that an encoder was trained on here, and those it was trained further from."""
    if encoder not in config["encoders"]:
        return set()
    entry = config["encoders"][encoder]
    before = entry["network"].get("pretrained")
    return {entry["corpus"]} | corpora_heard(config, before)


def has_training_speakers(corpus, trials):
    """Whether trials are of speakers who are in `train`, too, of a corpus's entry.

    Of a user's list the config cannot tell; of VoxCeleb1's, E and H are of all its speakers.
    """
    if "list" in trials:
        return trials["list"] in ("vox1-e", "vox1-h") or (
            trials["list"] in TRIAL_LISTS and "split" in corpus
        )
    if trials["split"] != "test":
        return True
    if "split" not in corpus:
        return corpus["kind"] == "kathbath"  # of `valid` and `test_known`
    return corpus["split"]["by"] != "speaker"


def heard_speakers(config):
    """Systems that would be scored on voices that their encoder was trained on."""
    verification = config["verification"]
    for system, entry in verification["systems"].items():
        heard = corpora_heard(config, entry.get("encoder"))
        for name in verification["evaluate"]:
            trials = verification["trials"][name]
            corpus = trials["corpus"]
            if corpus in heard and has_training_speakers(config["corpora"][corpus], trials):
                yield (
                    f"verification.systems.{system}.encoder = {entry['encoder']!r}: is trained on "
                    f"speakers of {corpus!r} who are in the trials {name!r} "
                    "(`verification.evaluate`); its error rates would be none of strangers"
                )


def unlike_scores(config):
    """Averages of scores that are not in one unit: the larger numbers alone would decide."""
    systems = config["verification"]["systems"]
    for name, entry in systems.items():
        parts = [systems[other] for other in entry.get("average", [])]
        if any("average" in part for part in parts):
            continue
        for key, what in (("calibration", "calibrated"), ("as_norm", "normalised by a cohort")):
            if len({bool(part[key]) for part in parts}) > 1:
                yield (
                    f"verification.systems.{name}.average: some of its scores are {what}, some not; "
                    "average scores of one unit"
                )
                break
