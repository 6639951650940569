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

    def check_ssl(place, value):
        if value not in config["pretraining"]:
            yield from check(place, value, "models")

    for name, entry in config["pretraining"].items():
        for corpus in corpora_of(entry):
            yield from check(f"pretraining.{name}.corpus", corpus, "corpora")
        if "model" in entry["targets"]:
            yield from check_ssl(f"pretraining.{name}.targets.model", entry["targets"]["model"])
        if "pretrained" in entry["network"]:
            start = entry["network"]["pretrained"]
            yield from check_ssl(f"pretraining.{name}.network.pretrained", start)
    for name, entry in config["ssl"].items():
        yield from check_ssl(f"ssl.{name}.model", entry["model"])
    for section in ("eta", "vocoder"):
        for name, entry in config[section].items():
            if "pretrained" in entry:
                yield from check(f"{section}.{name}.pretrained", entry["pretrained"], "models")
            else:
                for corpus in corpora_of(entry):
                    yield from check(f"{section}.{name}.corpus", corpus, "corpora")
            yield from check(f"{section}.{name}.ssl", entry["ssl"], "ssl")
    for name, entry in config["eta"].items():
        yield from check_encoder(f"eta.{name}.encoder", entry["encoder"])
    for name, entry in config["vocoder"].items():
        if "eta" in entry:
            yield from check(f"vocoder.{name}.eta", entry["eta"], "eta")
        if "start" in entry:
            yield from check(f"vocoder.{name}.start", entry["start"], "models")
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
        for corpus in corpora_of(entry):
            yield from check(f"encoders.{name}.corpus", corpus, "corpora")
        network = entry["network"]
        if "pretrained" in network:
            yield from check_encoder(f"encoders.{name}.network.pretrained", network["pretrained"])
        elif "model" in network:
            yield from check_ssl(f"encoders.{name}.network.model", network["model"])
    if "verification" in config:
        yield from dangling_in_verification(config["verification"], check, check_encoder)
    yield from dangling_in_separation(config, check)
    bundle = config.get("bundle", {})
    if bundle.get("verifier") and "verifier" not in config.get("verification", {}):
        yield "bundle.verifier = True: there is no `verification.verifier` to say of which system"
    if bundle.get("separator") not in (None, *config["separators"]):
        yield from check("bundle.separator", bundle["separator"], "models")
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


def misfit_generator(place, sizes):
    """Where the sizes of a generator do not make 20 ms of samples of a frame, or not fit each other."""
    rate = sizes.get("sample_rate", 16000)
    if sizes.get("kind", "hifigan") != "hifigan":
        # A harmonic generator has four filters a frame.
        upsample, samples = sizes.get("upsample", 4), rate // 50
        if samples % upsample:
            yield (
                f"{place}.upsample = {upsample}: it does not divide {samples}, the samples of a "
                f"frame of 20 ms at {rate} Hz"
            )
        elif sizes["n_fft"] * upsample < 2 * samples:
            yield (
                f"{place}.n_fft = {sizes['n_fft']}: less than {2 * samples // upsample}, two hops of "
                f"the STFT with upsample = {upsample} at {rate} Hz"
            )
        return
    hop = math.prod(sizes["upsample_factors"])
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


def misfits(config):
    """Parts that are there but do not fit each other, found before hours are spent on them."""

    def kind(place, name, allowed):
        if name in config["encoders"] and allowed is SPEAKER_ENCODERS:
            return
        if name in config["pretraining"] and allowed is not SPEAKER_ENCODERS:
            if "wavlm" not in allowed:
                yield f"{place} = {name!r}: a WavLM; allowed: {', '.join(sorted(allowed))}"
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
    yield from misfit_pretraining(config, kind)
    for name, entry in config["ssl"].items():
        yield from kind(f"ssl.{name}.model", entry["model"], SSL_ENCODERS)
    for name, entry in config["eta"].items():
        yield from kind(f"eta.{name}.encoder", entry["encoder"], SPEAKER_ENCODERS)
    for name, entry in config["vocoder"].items():
        if "pretrained" in entry:
            yield from kind(f"vocoder.{name}.pretrained", entry["pretrained"], VOCODERS)
            continue
        if "prematch" not in config and "prematched" in entry["features"]:
            yield f"prematch: missing; vocoder.{name} is trained on prematched features"
        if (entry["features"] == "eta") != ("eta" in entry):
            yield (
                f"vocoder.{name}: `features: eta` goes with `eta: NAME`, the entry of `eta` that "
                f"takes the speaker out of them; features is {entry['features']!r}"
            )
        if "eta" in entry and len(corpora_of(entry)) > 1:
            yield f"vocoder.{name}.corpus: of eta features, those of one corpus alone"
        for key in ("ssl", "layer") if "eta" in entry else ():
            if entry[key] != config["eta"][entry["eta"]][key]:
                yield (
                    f"vocoder.{name}.eta = {entry['eta']!r}: {key} is "
                    f"{config['eta'][entry['eta']][key]!r}, that of the vocoder is {entry[key]!r}"
                )
        if ("generator" in entry) == ("start" in entry):
            yield (
                f"vocoder.{name}: needs either `generator`, the sizes of a new one, or `start: MODEL`, "
                "the one to train on"
            )
        elif "start" in entry:
            yield from kind(f"vocoder.{name}.start", entry["start"], VOCODERS)
        else:
            yield from misfit_generator(f"vocoder.{name}.generator", entry["generator"])
        # A spectrum of less than that cannot be mirrored at its ends.
        longest = entry["segment_frames"] * 20 * 8 / 3
        for window in entry.get("mel_windows", []):
            if window >= longest:
                yield (
                    f"vocoder.{name}.mel_windows: {window} ms is too long for segments of "
                    f"{entry['segment_frames']} frames; take less than {longest:.0f}"
                )
    yield from misfit_encoders(config, kind)
    yield from misfit_mixtures(config)
    yield from misfit_separators(config, kind)
    if "separation" in config:
        yield from misfit_separation(config, kind)
    if "verification" in config:
        yield from misfit_verification(config, kind)
    separator = config.get("bundle", {}).get("separator")
    if separator in config["models"]:
        yield from kind("bundle.separator", separator, SEPARATORS)
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
