# What the schema cannot say: names that nothing defines, and parts that do not fit each other.

import math
import os


def dangling_references(config):
    """Names that one part of the config uses and no other defines."""

    def check(place, value, section):
        if value not in config[section]:
            known = ", ".join(sorted(config[section])) or "nothing"
            yield f"{place} = {value!r}: not in `{section}`, which has {known}"

    def check_encoder(place, value):
        if value not in config["encoders"]:
            yield from check(place, value, "models")

    for name, entry in config["ssl"].items():
        yield from check(f"ssl.{name}.model", entry["model"], "models")
    for section in ("eta", "vocoder"):
        for name, entry in config[section].items():
            if "pretrained" in entry:
                yield from check(f"{section}.{name}.pretrained", entry["pretrained"], "models")
            else:
                yield from check(f"{section}.{name}.corpus", entry["corpus"], "corpora")
            yield from check(f"{section}.{name}.ssl", entry["ssl"], "ssl")
    for name, entry in config["eta"].items():
        yield from check_encoder(f"eta.{name}.encoder", entry["encoder"])
    for name, entry in config["vocoder"].items():
        if "eta" in entry:
            yield from check(f"vocoder.{name}.eta", entry["eta"], "eta")
    if "sweep" in config:
        yield from check("sweep.eta", config["sweep"]["eta"], "eta")
        for encoder in config["sweep"].get("encoder", []):
            yield from check_encoder("sweep.encoder", encoder)
    if "probe" in config:
        yield from check("probe.corpus", config["probe"]["corpus"], "corpora")
    if "conversion" in config:
        conversion = config["conversion"]
        yield from check("conversion.corpus", conversion["corpus"], "corpora")
        yield from check_encoder("conversion.judge", conversion["judge"])
        for system in conversion.get("references", {}).get("systems", []):
            if system not in conversion["systems"]:
                known = ", ".join(sorted(conversion["systems"]))
                yield f"conversion.references.systems: {system!r} is none of `systems`: {known}"
        if conversion["asr"]["engine"] == "faster-whisper":
            yield from check("conversion.asr.model", conversion["asr"]["model"], "models")
    for name, entry in config["encoders"].items():
        yield from check(f"encoders.{name}.corpus", entry["corpus"], "corpora")
        network = entry["network"]
        if "pretrained" in network:
            yield from check_encoder(f"encoders.{name}.network.pretrained", network["pretrained"])
        elif "model" in network:
            yield from check(f"encoders.{name}.network.model", network["model"], "models")
    if "verification" in config:
        yield from dangling_in_verification(config["verification"], check, check_encoder)
    for section in ("conversion", "bundle"):
        if section in config:
            yield from check(f"{section}.vocoder", config[section]["vocoder"], "vocoder")
            if config[section]["eta"] is not None:
                yield from check(f"{section}.eta", config[section]["eta"], "eta")


def dangling_in_verification(verification, check, check_encoder):
    """The same of the section on verification."""

    def check_trials(place, value):
        if value not in verification["trials"]:
            known = ", ".join(sorted(verification["trials"]))
            yield f"{place} = {value!r}: not in `verification.trials`, which has {known}"

    def check_system(place, value):
        if value not in verification["systems"]:
            known = ", ".join(sorted(verification["systems"]))
            yield f"{place} = {value!r}: not in `verification.systems`, which has {known}"

    for name, entry in verification["trials"].items():
        yield from check(f"verification.trials.{name}.corpus", entry["corpus"], "corpora")
    for name, entry in verification["systems"].items():
        place = f"verification.systems.{name}"
        for other in entry.get("average", []):
            yield from check_system(f"{place}.average", other)
        if "encoder" in entry:
            yield from check_encoder(f"{place}.encoder", entry["encoder"])
        if entry.get("as_norm"):
            yield from check(f"{place}.as_norm.cohort", entry["as_norm"]["cohort"], "corpora")
        if entry.get("calibration"):
            yield from check_trials(f"{place}.calibration.trials", entry["calibration"]["trials"])
    for name in verification["evaluate"]:
        yield from check_trials("verification.evaluate", name)
    if "verifier" in verification:
        yield from check_system("verification.verifier.system", verification["verifier"]["system"])
        yield from check_trials("verification.verifier.trials", verification["verifier"]["trials"])


SPEAKER_ENCODERS = {"resemblyzer", "ecapa", "xvector", "wavlm-sv", "unispeech", "etaflow-encoder"}
SSL_ENCODERS = {
    "wavlm",
    "hubert",
    "wavlm-tiny",
    "wavlm-base",
    "wavlm-large",
    "hubert-base",
    "hubert-large",
}
VOCODERS = {"knnvc-hifigan", "etaflow-vocoder"}


def has_test_split(corpus):
    """Whether a corpus's entry puts any utterance into `test`: its split, or its subsets' names.

    VoxCeleb1 has neither; the speakers of its trials are `test`.
    """
    if "split" in corpus:
        return corpus["split"]["test_fraction"] > 0
    return not all(name.startswith("train-") for name in corpus.get("subsets", ["trials"]))


def misfits(config):
    """Parts that are there but do not fit each other, found before hours are spent on them."""

    def kind(place, name, allowed):
        if name in config["encoders"] and allowed is SPEAKER_ENCODERS:
            return
        architecture = config["models"][name]["architecture"]
        if architecture not in allowed:
            known = ", ".join(sorted(allowed))
            yield f"{place} = {name!r}: a model of architecture {architecture}; allowed: {known}"

    for name, entry in config["corpora"].items():
        if entry["kind"] == "voxceleb1" and not (entry.get("root") or entry.get("key_env")):
            yield (
                f"corpora.{name}: VoxCeleb1 has no open download. Of a copy that you have, say "
                "`root: FOLDER`; else register at https://mm.kaist.ac.kr/datasets/voxceleb for a key "
                "of your own, `export VOXCELEB_KEY=…`, and say `key_env: VOXCELEB_KEY`"
            )
    for name, entry in config["ssl"].items():
        yield from kind(f"ssl.{name}.model", entry["model"], SSL_ENCODERS)
    for name, entry in config["eta"].items():
        yield from kind(f"eta.{name}.encoder", entry["encoder"], SPEAKER_ENCODERS)
    for name, entry in config["vocoder"].items():
        if "pretrained" in entry:
            yield from kind(f"vocoder.{name}.pretrained", entry["pretrained"], VOCODERS)
            continue
        if "prematch" not in config and entry["features"] == "prematched":
            yield f"prematch: missing; vocoder.{name} is trained on prematched features"
        if (entry["features"] == "eta") != ("eta" in entry):
            yield (
                f"vocoder.{name}: `features: eta` goes with `eta: NAME`, the entry of `eta` that "
                f"takes the speaker out of them; features is {entry['features']!r}"
            )
        for key in ("ssl", "layer") if "eta" in entry else ():
            if entry[key] != config["eta"][entry["eta"]][key]:
                yield (
                    f"vocoder.{name}.eta = {entry['eta']!r}: {key} is "
                    f"{config['eta'][entry['eta']][key]!r}, that of the vocoder is {entry[key]!r}"
                )
        sizes, place = entry["generator"], f"vocoder.{name}.generator"
        hop, rate = math.prod(sizes["upsample_factors"]), sizes.get("sample_rate", 16000)
        if hop * 50 != rate:
            yield (
                f"{place}.upsample_factors = {sizes['upsample_factors']}: their product is {hop}, "
                f"not {rate // 50}, the samples of a frame of 20 ms at {rate} Hz"
            )
        for one, other in (
            ("upsample_factors", "upsample_kernels"),
            ("resblock_kernels", "resblock_dilations"),
        ):
            if len(sizes[one]) != len(sizes[other]):
                yield f"{place}.{other} = {sizes[other]}: not as many as {one} = {sizes[one]}"
    yield from misfit_encoders(config, kind)
    if "verification" in config:
        yield from misfit_verification(config, kind)
    if "probe" in config:
        corpus = config["corpora"][config["probe"]["corpus"]]
        if not has_test_split(corpus):
            yield f"probe.corpus = {config['probe']['corpus']!r}: has no test utterances to probe"
        if corpus["kind"] == "voxceleb1" and config["probe"]["content"]:
            yield "probe.content: VoxCeleb1 has no texts to align; say `content: null`"
    if "conversion" in config:
        conversion = config["conversion"]
        yield from kind("conversion.judge", conversion["judge"], SPEAKER_ENCODERS)
        if "model" in conversion["asr"]:
            yield from kind("conversion.asr.model", conversion["asr"]["model"], {"faster-whisper"})
        table = conversion["pairs"].get("table")
        if table is not None and not os.path.isfile(table):
            # Snakemake keeps outputs whose input is missing: those of other pairs.
            yield f"conversion.pairs.table = {table!r}: there is no such file"
        for name, entry in conversion["systems"].items():
            if entry["method"] in ("original", "copy"):
                place = f"conversion.systems.{name}: {entry['method']} has no references"
                if entry["reference_seconds"] is not None:
                    yield f"{place}, so no reference_seconds"
                if name in conversion.get("references", {}).get("systems", []):
                    yield f"{place} for conversion.references to vary"
        split = config["corpora"][conversion["corpus"]].get("split", {"test_fraction": 0.5})
        # Sources that are listed may be of any split, and references then are.
        if split["test_fraction"] == 0 and "sources_per_speaker" in conversion["pairs"]:
            yield f"corpora.{conversion['corpus']}.split.test_fraction = 0: nothing to convert"
        for name, system in conversion["systems"].items():
            if conversion["eta"] is None and "eta" in system["method"]:
                yield f"conversion.eta = None: systems.{name}.method = {system['method']!r} needs one"
    for section in ("conversion", "bundle"):
        if section in config:
            yield from unlike_features(config, section)


def unlike_features(config, section):
    """Where the vocoder, the Eta model and the systems of a section are not on the same features."""
    names = config[section]
    vocoder = config["vocoder"][names["vocoder"]]
    if names["eta"] is not None:
        eta = config["eta"][names["eta"]]
        for key in ("ssl", "layer"):
            if vocoder[key] != eta[key]:
                yield (
                    f"{section}.eta = {names['eta']!r}: {key} is {eta[key]!r}, that of the "
                    f"vocoder {names['vocoder']!r} is {vocoder[key]!r}"
                )
    if vocoder["features"] != "eta":
        return
    # The config does not know which Eta model a vocoder from elsewhere was trained with.
    if names["eta"] is None or names["eta"] != vocoder.get("eta", names["eta"]):
        yield (
            f"{section}.eta = {names['eta']!r}: the vocoder {names['vocoder']!r} reads eta "
            f"features; say `eta: {vocoder.get('eta', 'NAME')}`, which it is trained with"
        )
    for name, system in names.get("systems", {}).items():
        method, copied = system["method"], "base" in system
        if not (copied or method in ("original", "copy") or method.endswith("-eta")):
            yield (
                f"conversion.systems.{name}.method = {method!r}: the vocoder "
                f"{names['vocoder']!r} reads eta features; allowed are original, copy, and "
                "methods that end in -eta"
            )


def trained_from(config, encoder):
    """An encoder, the one that it starts from, and so on; ends where a circle closes."""
    names = [encoder]
    while names[-1] in config["encoders"] and names[-1] not in names[:-1]:
        start = config["encoders"][names[-1]]["network"].get("pretrained")
        if start is None:
            break
        names.append(start)
    return names


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
        official = entry.get("list") == "vox1-o"
        if "list" in entry and entry["list"] not in TRIAL_LISTS:
            continue
        tested = official or entry.get("split") == "test"
        if tested and test_speakers_are_others(config["corpora"][entry["corpus"]]):
            continue
        for system, settings in verification["systems"].items():
            for encoder in trained_from(config, settings.get("encoder")):
                training = config["encoders"].get(encoder, {})
                if training.get("corpus") == entry["corpus"] and training.get("steps") != 0:
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
