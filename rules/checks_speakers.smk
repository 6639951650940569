# What the schema cannot say of speaker encoders and verification.

import os


def corpora_of(training):
    """The corpora of a training of an encoder: one by its name, or a list of them."""
    named = training["corpus"]
    return [named] if isinstance(named, str) else named


def trained_from(config, encoder):
    """An encoder, the one that it starts from, and so on; ends where a circle closes."""
    names = [encoder]
    while names[-1] in config["encoders"] and names[-1] not in names[:-1]:
        start = config["encoders"][names[-1]]["network"].get("pretrained")
        if start is None:
            break
        names.append(start)
    return names


def corpora_heard(config, encoder):
    """The corpora that an encoder, and those that it starts from, are trained on in this run."""
    names = [name for name in trained_from(config, encoder) if name in config["encoders"]]
    entries = [config["encoders"][name] for name in names]
    return sorted({c for e in entries if e.get("steps") != 0 for c in corpora_of(e)})


def made_from(config, name):
    """The models that a pretraining goes on from or predicts."""
    entry = config["pretraining"].get(name, {"network": {}, "targets": {}})
    named = (entry["network"].get("pretrained"), entry["targets"].get("model"))
    return {each for each in named if each is not None}


def corpora_pretrained(config, name):
    """The corpora that a WavLM, and those that it comes from, are pretrained on in this run."""
    entry = config["pretraining"].get(name)
    found = set(corpora_of(entry)) if entry else set()
    return sorted(found.union(*(corpora_pretrained(config, o) for o in made_from(config, name))))


def misfit_pretraining(config, kind):
    """Pretrainings that could only fail."""
    for name, entry in config["pretraining"].items():
        place = f"pretraining.{name}"
        for section in ("models", "encoders", "separators"):
            if name in config[section]:
                yield f"{place}: `{section}` has that name, too; the two must differ"
        before, seen = made_from(config, name), set()
        while before - seen:
            seen |= before
            before = {each for other in before for each in made_from(config, other)}
        if name in seen:
            yield f"{place}: it is made from itself, by `network.pretrained` or `targets.model`"
        if "pretrained" in entry["network"]:
            start = entry["network"]["pretrained"]
            wavlms = {each for each in SSL_ENCODERS if each.startswith("wavlm")}
            yield from kind(f"{place}.network.pretrained", start, wavlms)
        if "model" in entry["targets"]:
            yield from kind(f"{place}.targets.model", entry["targets"]["model"], SSL_ENCODERS)
        if entry["overlaid"]["speech"] + entry["overlaid"]["noise"] > 1:
            yield f"{place}.overlaid: the two probabilities are more than 1 together"


def misfit_encoders(config, kind):
    """Trainings of speaker encoders that could only fail."""
    for name, entry in config["encoders"].items():
        place, network, loss = f"encoders.{name}", entry["network"], entry["loss"]["kind"]
        if name in config["models"]:
            yield f"{place}: `models` has that name, too; the two must differ"
        if ("steps" in entry) == ("epochs" in entry):
            yield f"{place}: how long it is trained is said by `steps` or by `epochs`, one of the two"
        line = trained_from(config, name)
        if line[-1] == name and len(line) > 1:
            # Where files of an earlier run lie about, Snakemake would take them for the start.
            yield f"{place}.network.pretrained: {' from '.join(line)}: none of them comes first"
        if "pretrained" in network:
            # Resemblyzer reads its mel spectrograms by another library, without gradients.
            trainable = SPEAKER_ENCODERS - {"resemblyzer"}
            if network["pretrained"] not in config["encoders"]:
                yield from kind(f"{place}.network.pretrained", network["pretrained"], trainable)
        elif "model" in network:
            yield from kind(f"{place}.network.model", network["model"], SSL_ENCODERS)
        if loss in ("ge2e", "bce_pairs") and entry["utterances"] < 2:
            yield f"{place}.utterances = {entry['utterances']}: {loss} needs 2 or more of a speaker"
        if entry["trained_layers"] is not None and not {"pretrained", "model"} & network.keys():
            yield f"{place}.trained_layers: the network is new, all of it is trained; say null"
        settings = entry["augmentation"] or {}
        for key in ("noise", "music", "babble", "reverberation"):
            if key in settings and not os.path.isdir(user_path(settings[key]["folder"])):
                folder = settings[key]["folder"]
                yield f"{place}.augmentation.{key}.folder = {folder!r}: there is no such folder"
        for key in ("noise", "music", "babble"):
            if key in settings and settings[key]["snr"][0] > settings[key]["snr"][1]:
                yield f"{place}.augmentation.{key}.snr = {settings[key]['snr']}: the lower one first"


def scores_of(system):
    """What the scores of a system that is no average are."""
    if system["calibration"]:
        return "log-likelihood ratios"
    return "normalised cosines" if system["as_norm"] else "cosines"


def test_speakers_are_others(corpus):
    """Whether no speaker of a corpus is in both its splits."""
    if "split" in corpus:
        return corpus["split"]["by"] == "speaker"
    return corpus["kind"] != "kathbath"


def heard_trials(config):
    """Trials whose speakers an encoder was trained on; a list of the user's own is not read."""
    verification = config["verification"]
    for name in verification["evaluate"]:
        entry = verification["trials"][name]
        # A `split` of the user's own may have put their speakers anywhere.
        own = "split" in config["corpora"][entry["corpus"]]
        official = entry.get("list") == "vox1-o" and not own
        if "list" in entry and entry["list"] not in TRIAL_LISTS:
            continue
        tested = official or entry.get("split") == "test"
        if tested and test_speakers_are_others(config["corpora"][entry["corpus"]]):
            continue
        for system, settings in verification["systems"].items():
            for encoder in trained_from(config, settings.get("encoder")):
                training = config["encoders"].get(encoder, {"steps": 0})
                if training.get("steps") != 0 and entry["corpus"] in corpora_of(training):
                    yield (
                        f"verification.evaluate: {name!r} has speakers of {entry['corpus']!r} that "
                        f"the encoder {encoder!r} of the system {system!r} is trained on; its error "
                        "rate would be that of no stranger"
                    )


def misfit_verification(config, kind):
    """Trials and systems that could only fail, or whose numbers would mislead."""
    verification = config["verification"]
    trials, systems = verification["trials"], verification["systems"]
    for name, entry in trials.items():
        place, corpus = f"verification.trials.{name}", config["corpora"][entry["corpus"]]
        if entry.get("split") == "test" and not has_test_split(corpus):
            yield f"{place}: {entry['corpus']!r} has no test utterances"
        if entry.get("list") in TRIAL_LISTS and corpus["kind"] != "voxceleb1":
            yield f"{place}.list = {entry['list']!r}: trials of VoxCeleb1, not of {entry['corpus']!r}"
        elif "list" in entry and entry["list"] not in TRIAL_LISTS:
            if not os.path.isfile(user_path(entry["list"])):
                known = ", ".join(TRIAL_LISTS)
                yield f"{place}.list = {entry['list']!r}: no such file, and none of {known}"
    for name, entry in systems.items():
        place = f"verification.systems.{name}"
        if name in ("trials", "calibration"):
            yield f"{place}: a folder of the results has that name; choose another"
        if "average" in entry:
            for other in entry["average"]:
                if "average" in systems[other]:
                    yield f"{place}.average: {other!r} is an average itself; list what it is of"
            parts = [systems[other] for other in entry["average"]]
            if any("average" in part for part in parts):
                continue
            if len({scores_of(part) for part in parts}) > 1:
                kinds = ", ".join(f"{o}: {scores_of(systems[o])}" for o in entry["average"])
                yield f"{place}.average: scores of one kind have a mean; they are {kinds}"
            continue
        yield from kind(f"{place}.encoder", entry["encoder"], SPEAKER_ENCODERS)
        if entry["calibration"] and entry["calibration"]["trials"] in verification["evaluate"]:
            yield (
                f"{place}.calibration.trials = {entry['calibration']['trials']!r}: these are scored, "
                "too (`verification.evaluate`); calibrate on others, of other speakers"
            )
    yield from heard_trials(config)
    if "verifier" in verification:
        chosen = verification["verifier"]
        if "average" in systems[chosen["system"]]:
            yield "verification.verifier.system: an average; `etaflow verify` takes one encoder"
        elif systems[chosen["system"]]["as_norm"]:
            yield "verification.verifier.system: has a cohort; `etaflow verify` takes plain scores"
        if chosen["trials"] not in verification["evaluate"]:
            yield "verification.verifier.trials: none of `verification.evaluate`"
