# The config: checked before anything runs, and with the entries that it implies.

import math
import os

import jsonschema
import yaml
from snakemake.exceptions import WorkflowError


def config_lines(error):
    """One schema error as `key = value: what is allowed`."""
    key = ".".join(str(part) for part in error.absolute_path) or "(top level)"
    if error.validator == "type" and error.validator_value == "string":
        return f"{key} = {error.instance!r}: must be text; put it in quotes"
    if "description" in error.schema:
        return f"{key} = {error.instance!r}: allowed are {error.schema['description']}"
    if error.validator == "additionalProperties":
        allowed = ", ".join(sorted(error.schema.get("properties", {})))
        return f"{key}: {error.message}; allowed are: {allowed}"
    if error.validator == "required":
        return f"{key}: {error.message}"
    if error.validator == "oneOf" and error.context:
        # Alternatives are told apart by a constant: `kind`, `source` or `engine`.
        wrong = {e.schema_path[0]: e for e in error.context if e.validator == "const"}
        fitting = [e for e in error.context if e.schema_path[0] not in wrong]
        if fitting:
            return config_lines(fitting[0])
        tag = next(iter(wrong.values()))
        known = ", ".join(str(e.validator_value) for e in wrong.values())
        return f"{key}.{tag.path[-1]} = {tag.instance!r}: allowed are {known}"
    return f"{key} = {error.instance!r}: {error.message}"


def dangling_references(config):
    """Names that one part of the config uses and no other defines."""

    def check(place, value, section):
        if value not in config[section]:
            known = ", ".join(sorted(config[section])) or "nothing"
            yield f"{place} = {value!r}: not in `{section}`, which has {known}"

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
        yield from check(f"eta.{name}.encoder", entry["encoder"], "models")
    for name, entry in config["vocoder"].items():
        if "eta" in entry:
            yield from check(f"vocoder.{name}.eta", entry["eta"], "eta")
    if "sweep" in config:
        yield from check("sweep.eta", config["sweep"]["eta"], "eta")
        for encoder in config["sweep"].get("encoder", []):
            yield from check("sweep.encoder", encoder, "models")
    if "probe" in config:
        yield from check("probe.corpus", config["probe"]["corpus"], "corpora")
    if "conversion" in config:
        conversion = config["conversion"]
        yield from check("conversion.corpus", conversion["corpus"], "corpora")
        yield from check("conversion.judge", conversion["judge"], "models")
        for system in conversion.get("references", {}).get("systems", []):
            if system not in conversion["systems"]:
                known = ", ".join(sorted(conversion["systems"]))
                yield f"conversion.references.systems: {system!r} is none of `systems`: {known}"
        if conversion["asr"]["engine"] == "faster-whisper":
            yield from check("conversion.asr.model", conversion["asr"]["model"], "models")
    for section in ("conversion", "bundle"):
        if section in config:
            yield from check(f"{section}.vocoder", config[section]["vocoder"], "vocoder")
            if config[section]["eta"] is not None:
                yield from check(f"{section}.eta", config[section]["eta"], "eta")


SPEAKER_ENCODERS = {"resemblyzer", "ecapa", "xvector"}
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


def swept_value(axis, value):
    """A value of the sweep in words: null means no PCA, and all utterances or frames."""
    return str(value) if value is not None else "none" if axis == "pca" else "all"


def swept_name(base, axis, value):
    """The entry of `eta` that a value of the sweep stands for; the base is one of them itself."""
    same = config["eta"][base][axis] == value
    return base if same else f"{base}-{axis}-{swept_value(axis, value)}"


def sweep():
    """What the sweep varies, one thing at a time: (axis, value, entry of `eta`)."""
    entry = config.get("sweep", {})
    return [
        (axis, value, swept_name(entry["eta"], axis, value))
        for axis in ("layer", "pca", "encoder", "utterances", "frames")
        for value in entry.get(axis, [])
    ]


def studied():
    """The entries of `eta` that the config names itself; those of the sweep stand in one figure."""
    return [name for name, entry in config["eta"].items() if "swept" not in entry]


def with_sweep(config):
    """The config with an entry of `eta` for each value of the sweep."""
    base = config["sweep"]["eta"]
    for axis, value, name in sweep():
        if name != base:
            if name in config["eta"]:
                raise WorkflowError(f"eta.{name}: the sweep over {axis} needs this name")
            config["eta"][name] = config["eta"][base] | {axis: value, "swept": True}
    return config


def references():
    """The systems that the amount of reference is varied of: (base, seconds, system)."""
    conversion = config.get("conversion", {})
    entry = conversion.get("references", {"systems": [], "seconds": []})

    def name(base, seconds):
        if conversion["systems"][base]["reference_seconds"] == seconds:
            return base
        return f"{base}-all" if seconds is None else f"{base}-{seconds}s"

    return [
        (base, seconds, name(base, seconds))
        for base in entry["systems"]
        for seconds in entry["seconds"]
    ]


def compared():
    """The systems that the config names itself; those of `references` stand in a figure of their own."""
    return [name for name, entry in config["conversion"]["systems"].items() if "base" not in entry]


def with_references(config):
    """The config with a system for each amount of reference, and an amount for each system."""
    systems = config.get("conversion", {}).get("systems", {})
    for entry in systems.values():
        entry.setdefault("reference_seconds", None)
    for base, seconds, name in references():
        if name != base:
            if name in systems:
                raise WorkflowError(
                    f"conversion.systems.{name}: conversion.references needs this name"
                )
            systems[name] = systems[base] | {"reference_seconds": seconds, "base": base}
    return config


def validated(config):
    """The config, or a WorkflowError that names each wrong key, its value and what is allowed."""
    with open(os.path.join(workflow.basedir, "config", "schema.yaml"), encoding="utf-8") as stream:
        schema = yaml.safe_load(stream)
    errors = jsonschema.Draft202012Validator(schema).iter_errors(config)
    lines = [config_lines(error) for error in sorted(errors, key=lambda e: str(e.absolute_path))]
    if not lines:
        for section in ("corpora", "eta"):
            config.setdefault(section, {})
        lines = list(dangling_references(config))
    if not lines:
        if "sweep" in config:
            config = with_sweep(config)
        config = with_references(config)
        lines = list(misfits(config))
    if lines:
        raise WorkflowError("the config is wrong:\n" + "\n".join(f"  {line}" for line in lines))
    return config
