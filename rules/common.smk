# Helper functions of the rules: paths, the part of the config a rule depends on, the code it runs.

import hashlib
import json
import math
import os
import re
import sys
from functools import cache

import jsonschema
import yaml
from snakemake.exceptions import WorkflowError

sys.path.insert(0, workflow.basedir)
from etaflow.manifest import shard_names
from etaflow.provenance import source_files

# --- the config, checked before anything runs


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
        for name, entry in conversion["systems"].items():
            if entry["method"] in ("original", "copy"):
                place = f"conversion.systems.{name}: {entry['method']} has no references"
                if entry["reference_seconds"] is not None:
                    yield f"{place}, so no reference_seconds"
                if name in conversion.get("references", {}).get("systems", []):
                    yield f"{place} for conversion.references to vary"
        split = config["corpora"][conversion["corpus"]].get("split", {"test_fraction": 0.5})
        if split["test_fraction"] == 0:
            yield f"corpora.{conversion['corpus']}.split.test_fraction = 0: nothing to convert"
        for name, system in conversion["systems"].items():
            if conversion["eta"] is None and "eta" in system["method"]:
                yield f"conversion.eta = None: systems.{name}.method = {system['method']!r} needs one"
    for section in ("conversion", "bundle"):
        if section in config and config[section]["eta"] is not None:
            names = config[section]
            vocoder, eta = config["vocoder"][names["vocoder"]], config["eta"][names["eta"]]
            for key in ("ssl", "layer"):
                if vocoder[key] != eta[key]:
                    yield (
                        f"{section}.eta = {names['eta']!r}: {key} is {eta[key]!r}, that of the "
                        f"vocoder {names['vocoder']!r} is {vocoder[key]!r}"
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


def one_of(names):
    """A wildcard constraint: exactly these names."""
    return "|".join(re.escape(str(name)) for name in names) or "none"


# --- what a rule depends on


def subtree(path, *keys):
    """The part of the config that a rule depends on, as canonical JSON.

    `path` and `keys` are dotted and may hold wildcards: `subtree("eta.{eta}", "pca")` gives
    `{"pca": 16}` to the jobs of that Eta model, and to no other a reason to run again.
    """

    def lookup(value, dotted):
        for part in dotted.split(".") if dotted else []:
            value = value[part]
        return value

    def selected(wildcards):
        value = lookup(config, path.format(**wildcards))
        if keys:
            names = [key.format(**wildcards) for key in keys]
            value = {name.split(".")[-1]: lookup(value, name) for name in names}
        return json.dumps(value, sort_keys=True)

    return selected


@cache
def source(script):
    """The script of a rule and the modules it imports, relative to the working directory."""
    files = source_files(
        os.path.join(workflow.basedir, "scripts", f"{script}.py"),
        os.path.join(workflow.basedir, "etaflow"),
    )
    return [os.path.relpath(file) for file in files]


# --- paths


RESULTS = f"results/{config['run']}"
LOGS = f"logs/{config['run']}"
BENCHMARKS = f"benchmarks/{config['run']}"

# What a training is followed by. A resource of rules, not a param: to follow it elsewhere is no
# reason to train again.
TRACKER = config.get("tracker", "tensorboard") or "none"

# Starts a training, in a process a GPU. Chosen by the shell and not in params: another number of
# GPUs is no reason to train again either.
LAUNCH = (
    "launch=python; [ {resources.gpu} -lt 2 ] || launch='accelerate launch --multi_gpu"
    " --num_processes {resources.gpu} --num_machines 1 --main_process_port 0"
    " --mixed_precision no --dynamo_backend no'; $launch"
)


def shards(corpus):
    return shard_names(config["corpora"][corpus]["shards"])


def entry_of(section, wildcards):
    """The entry of `eta` or `vocoder` that the wildcard of the same name chooses."""
    return config[section][wildcards[section]]


def shard_files(stage, corpus, ssl, layer):
    """All shards of `features` or `prematch`."""
    folder = f"{RESULTS}/{stage}/{corpus}/{ssl}-l{layer}"
    return [f"{folder}/{shard}.h5" for shard in shards(corpus)]


def vocoders(pretrained):
    """The vocoders that are imported, or those that are trained."""
    return [n for n, entry in config["vocoder"].items() if ("pretrained" in entry) == pretrained]


def feature_sets():
    """What the config asks features for: (corpus, ssl, layer), each once, in order."""
    makers = [*config["eta"].values(), *(config["vocoder"][n] for n in vocoders(pretrained=False))]
    asked = {(entry["corpus"], entry["ssl"], entry["layer"]) for entry in makers}
    if "probe" in config:
        probed = config["probe"]["corpus"]
        asked |= {(probed, entry["ssl"], entry["layer"]) for entry in config["eta"].values()}
    if "conversion" in config:
        vocoder = config["vocoder"][config["conversion"]["vocoder"]]
        asked.add((config["conversion"]["corpus"], vocoder["ssl"], vocoder["layer"]))
    return sorted(asked)


@cache
def passes():
    """The layers that one pass through a model makes of a corpus: {(corpus, ssl): layers}.

    Only layers that something asks for: Snakemake 9.27 does not see a changed parameter of a job
    while one of its outputs was never made.
    """
    found = {}
    for corpus, ssl, layer in feature_sets():
        if layer in config["ssl"][ssl].get("together", []):
            found.setdefault((corpus, ssl), []).append(layer)
    return {key: layers for key, layers in found.items() if len(layers) > 1}


def corpora_of_single_layers():
    """A wildcard constraint: any corpus, unless features follow that a pass of several makes."""

    def elsewhere(corpus):
        folders = [
            f"{re.escape(ssl)}-l(?:{'|'.join(map(str, layers))})/"
            for (name, ssl), layers in passes().items()
            if name == corpus
        ]
        return f"(?!/(?:{'|'.join(folders)}))" if folders else ""

    return "|".join(re.escape(name) + elsewhere(name) for name in config["corpora"]) or "none"


def features_of(section):
    """The feature shards that an entry of `eta` or `vocoder` is made from."""

    def files(wildcards):
        entry = entry_of(section, wildcards)
        stage = "prematch" if entry.get("features") == "prematched" else "features"
        return shard_files(stage, entry["corpus"], entry["ssl"], entry["layer"])

    return files


def eta_of_vocoder(wildcards):
    """The Eta model and the embeddings that a vocoder's features are freed of the speaker by."""
    entry = entry_of("vocoder", wildcards)
    if entry["features"] != "eta":
        return {}
    return {
        "eta": f"{RESULTS}/eta/{entry['eta']}/eta.safetensors",
        "eta_config": f"{RESULTS}/eta/{entry['eta']}/config.json",
        "embeddings": embeddings(entry["corpus"], config["eta"][entry["eta"]]["encoder"]),
    }


def eta_options(wildcards, input):
    """The same as options of a script."""
    if "eta" not in input.keys():
        return ""
    return f"--eta {os.path.dirname(input.eta)} --embeddings {input.embeddings}"


def recordings_of(section):
    """The manifest, without texts, of the corpus of an entry of `eta` or `vocoder`."""
    return lambda w: f"{RESULTS}/manifests/{entry_of(section, w)['corpus']}.recordings.tsv"


def embeddings_of(section):
    """The speaker embeddings that an entry of `eta` uses."""
    return lambda w: embeddings(entry_of(section, w)["corpus"], entry_of(section, w)["encoder"])


def embeddings(corpus, encoder):
    return f"{RESULTS}/embeddings/{corpus}/{encoder}.h5"


def model(name):
    return f"resources/models/{name}/model.json"


def ssl_model(ssl):
    return model(config["ssl"][ssl]["model"])


def ssl_model_of(section):
    return lambda w: ssl_model(entry_of(section, w)["ssl"])


@cache
def tree_digest(root):
    """Changes when a file under `root` comes, goes, or changes its size or time."""
    if not os.path.isdir(root):
        raise WorkflowError(f"the corpus root {root!r} is not a folder")
    digest, seen = hashlib.blake2b(digest_size=8), set()
    for folder, folders, files in os.walk(root, followlinks=True):
        # The corpus follows links too; a link back up the tree is walked once.
        real = os.path.realpath(folder)
        folders[:] = [] if real in seen else sorted(f for f in folders if not f.startswith("."))
        seen.add(real)
        for name in sorted(f for f in files if not f.startswith(".")):
            path = os.path.join(folder, name)
            status = os.stat(path) if os.path.exists(path) else os.lstat(path)
            place = os.fsencode(os.path.relpath(path, root))
            digest.update(place + f" {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def corpus_root(corpus):
    """Where a corpus lies: its `root`, in which {speech_dir} is filled in, or where it is fetched.

    Corpora of one published kind share their downloads.
    """
    entry = config["corpora"][corpus]
    root = entry.get("root")
    if root is None:
        return f"resources/corpora/{corpus if entry['kind'] == 'mini' else entry['kind']}"
    root = os.path.expanduser(os.path.expandvars(root))
    if "{speech_dir}" in root:
        if "speech_dir" not in config:
            raise WorkflowError(
                f"corpora.{corpus}.root = {root!r} needs a value: --config speech_dir=FOLDER"
            )
        root = root.replace("{speech_dir}", os.path.expanduser(config["speech_dir"]))
    return root


def fetched_part(wildcards):
    """The part of a corpus's entry that says what to fetch."""
    entry = config["corpora"][wildcards.corpus]
    keys = ["kind", "subsets", "key_env"]
    if entry["kind"] == "mini":
        keys += ["speakers", "sentences", "seed"]
    return json.dumps({key: entry[key] for key in keys if key in entry}, sort_keys=True)


def root_of(corpus):
    return lambda w: corpus_root(corpus)


def fetched(corpus):
    """What a corpus without a `root` of its own waits for."""
    found = config["corpora"][corpus].get("root") is not None
    return [] if found else f"resources/corpora/{corpus}/fetched.json"


def found_tree(corpus):
    """A user's folder is watched for changes; published corpora are taken as they are."""
    watched = config["corpora"][corpus]["kind"] == "folder"
    return tree_digest(corpus_root(corpus)) if watched else ""


def fetched_model(wildcards):
    """The part of a model's entry that says what to fetch."""
    entry = config["models"][wildcards.model]
    return json.dumps({k: v for k, v in entry.items() if k != "licence"}, sort_keys=True)


def local_model_files(wildcards):
    """The files of a model that the user has already, so that a change of them is seen."""
    entry = config["models"][wildcards.model]
    if entry["source"] != "path":
        return []
    folder = os.path.expanduser(entry["path"])
    return sorted(
        os.path.join(place, name) for place, _, files in os.walk(folder) for name in files
    )


def imported_vocoder(wildcards):
    """What the config says of the features that an imported vocoder was trained on."""
    entry = entry_of("vocoder", wildcards)
    facts = {key: entry[key] for key in ("layer", "features")}
    return json.dumps(
        facts | {"normalize": config["ssl"][entry["ssl"]]["normalize"]}, sort_keys=True
    )


def pca_of_eta(wildcards):
    """The PCA of an Eta model, unless the config says null."""
    fitted = config["eta"][wildcards.eta]["pca"] is not None
    return f"{RESULTS}/eta/{wildcards.eta}/pca.safetensors" if fitted else []


def probed_features(wildcards):
    """The features of the probed corpus that an Eta model applies to."""
    entry = entry_of("eta", wildcards)
    return shard_files("features", config["probe"]["corpus"], entry["ssl"], entry["layer"])


def content_of_probe(wildcards, input):
    """What else than speakers is probed: phones, and words where the vocabulary is closed."""
    closed = config["corpora"][config["probe"]["corpus"]]["kind"] == "mini"
    words = " --words" if closed else ""
    return f"--alignments {input.alignments}{words}" if input.alignments else ""


def method_of(system):
    return config["conversion"]["systems"][system]["method"]


def needs_eta(method):
    """Whether a system takes speakers out of features: by its method, or because its vocoder does."""
    vocoder = config["vocoder"][config["conversion"]["vocoder"]]
    return "eta" in method or (method != "original" and vocoder.get("features") == "eta")


def conversion_settings(wildcards):
    """What a system's conversions depend on in the config, as canonical JSON."""
    conversion = config["conversion"]
    settings = {"topk": conversion["topk"], "reference_seconds": None}
    settings |= {key: conversion[key] for key in ("pairs", "seed")}
    return json.dumps(settings | conversion["systems"][wildcards.system], sort_keys=True)


def conversion_inputs(wildcards):
    """What a system is made from: its method says."""
    conversion, method = config["conversion"], method_of(wildcards.system)
    vocoder = config["vocoder"][conversion["vocoder"]]
    inputs = {"pairs": conversion["pairs"]["table"]} if "table" in conversion["pairs"] else {}
    if method != "original":
        folder = f"{RESULTS}/vocoder/{conversion['vocoder']}"
        inputs |= {
            "features": shard_files(
                "features", conversion["corpus"], vocoder["ssl"], vocoder["layer"]
            ),
            "model": ssl_model(vocoder["ssl"]),
            "vocoder": f"{folder}/generator.safetensors",
            "vocoder_config": f"{folder}/config.json",
        }
    if needs_eta(method):
        folder = f"{RESULTS}/eta/{conversion['eta']}"
        inputs |= {
            "eta": f"{folder}/eta.safetensors",
            "eta_config": f"{folder}/config.json",
            "embeddings": embeddings(
                conversion["corpus"], config["eta"][conversion["eta"]]["encoder"]
            ),
        }
    return inputs


def conversion_parts(wildcards, input):
    """The same as arguments of the script."""
    parts = list(input.get("features", []))
    for name in ("model", "embeddings"):
        parts += [f"--{name} {input[name]}"] if name in input.keys() else []
    for name in ("vocoder", "eta"):
        parts += [f"--{name} {os.path.dirname(input[name])}"] if name in input.keys() else []
    return " ".join(parts)


def conversion_models(wildcards):
    """The models that a system's numbers rest on; the worst of their weights stands beside them."""
    conversion, method = config["conversion"], method_of(wildcards.system)
    models = [model(conversion["judge"])]
    if "model" in conversion["asr"]:
        models.append(model(conversion["asr"]["model"]))
    if method != "original":
        vocoder = config["vocoder"][conversion["vocoder"]]
        models.append(ssl_model(vocoder["ssl"]))
        models += [model(vocoder["pretrained"])] if "pretrained" in vocoder else []
    if needs_eta(method):
        models.append(model(config["eta"][conversion["eta"]]["encoder"]))
    return models


def report_items():
    """The figures and pages that the config gives rise to."""
    items = []
    if any(config["eta"][name]["pca"] is not None for name in studied()):
        items.append("scree.svg")
    items += [f"{figure}-{name}.svg" for name in studied() for figure in ("umap", "norms")]
    items += ["probe.html"] if "probe" in config and studied() else []
    items += ["sweep.svg"] if sweep() else []
    if vocoders(pretrained=False):
        items.append("training.svg")
    if "conversion" in config:
        items += ["det.svg", "metrics.html"]
        items += ["references.svg"] if references() else []
        items += ["listening.html"] if synthesised_systems() else []
    return items


def synthesised_systems():
    """The systems whose output is not a recording."""
    return [name for name in compared() if method_of(name) != "original"]


def evaluation(wildcards):
    """What the numbers of the conversion rest on, for the protocol that stands beside them."""
    conversion = config["conversion"]
    recogniser = config["models"].get(conversion["asr"].get("model"), {})
    protocol = {
        "systems": compared(),
        "corpus": config["corpora"][conversion["corpus"]] | {"name": conversion["corpus"]},
        "judge": config["models"][conversion["judge"]],
        "asr": conversion["asr"] | {"repo": recogniser.get("repo", recogniser.get("path"))},
        "pairs": conversion["pairs"],
        "bootstrap_rounds": conversion["bootstrap_rounds"],
    }
    return json.dumps(protocol, sort_keys=True)


def bundled():
    """What the bundle is of, {vocoder, eta}; empty if the config asks for none."""
    found = config.get("bundle", config.get("conversion", {}))
    return {key: found[key] for key in ("vocoder", "eta") if key in found}


def bundle_inputs(wildcards):
    """What the bundle is made from; without an Eta model neither that nor a speaker encoder."""
    vocoder, names = config["vocoder"][bundled()["vocoder"]], bundled()
    folder = f"{RESULTS}/vocoder/{names['vocoder']}"
    inputs = {
        "ssl": ssl_model(vocoder["ssl"]),
        "vocoder": f"{folder}/generator.safetensors",
        "vocoder_config": f"{folder}/config.json",
    }
    if "pretrained" not in vocoder:
        manifest = f"{RESULTS}/manifests/{vocoder['corpus']}.recordings.tsv"
        inputs |= {"vocoder_metrics": f"{folder}/metrics.tsv", "vocoder_manifest": manifest}
    if names["eta"] is not None:
        eta, folder = config["eta"][names["eta"]], f"{RESULTS}/eta/{names['eta']}"
        inputs |= {
            "speaker": model(eta["encoder"]),
            "eta": f"{folder}/eta.safetensors",
            "eta_config": f"{folder}/config.json",
            "eta_manifest": f"{RESULTS}/manifests/{eta['corpus']}.recordings.tsv",
        }
    conversion = config.get("conversion", {})
    if names.items() <= conversion.items():
        inputs["metrics"] = f"{RESULTS}/conversion/metrics.tsv"
    return inputs


def bundle_parts(wildcards, input):
    """The same as arguments of the script."""
    files = {name: input[name] for name in bundle_inputs(wildcards)}
    files |= {name: os.path.dirname(files[name]) for name in ("vocoder", "eta") if name in files}
    options = ("ssl", "speaker", "eta", "eta_manifest", "vocoder", "vocoder_manifest", "metrics")
    return " ".join(
        f"--{name.replace('_', '-')} {files[name]}" for name in options if name in files
    )


def origin(name):
    """Where a model of the registry can be had, and under which licence, as far as it is known."""
    entry = config["models"][name]
    place = entry.get("url", "").partition("?")[0]  # a query may hold a secret
    if "repo" in entry:
        place = f"https://huggingface.co/{entry['repo']}"
    return {"place": place, "licence": entry.get("licence", "")}


def bundle_config(wildcards):
    """What the card of the bundle says of the config."""
    names = bundled()
    entries = {key: config[key][name] for key, name in names.items() if name is not None}
    vocoder = entries["vocoder"]
    corpora = sorted({entry["corpus"] for entry in entries.values() if "corpus" in entry})
    seeds = {f"corpus {name}": config["corpora"][name]["seed"] for name in corpora}
    seeds |= {"vocoder": vocoder["seed"]} if "seed" in vocoder else {}
    seeds |= {"conversion": config["conversion"]["seed"]} if "conversion" in config else {}
    origins = {"ssl": origin(config["ssl"][vocoder["ssl"]]["model"])}
    if "pretrained" in vocoder:
        origins["vocoder"] = origin(vocoder["pretrained"])
    if "eta" in entries:
        origins["speaker"] = origin(entries["eta"]["encoder"])
    facts = {"run": config["run"], "seeds": seeds, "origins": origins, **entries}
    if "metrics" in bundle_inputs(wildcards):
        facts["evaluation"] = json.loads(evaluation(wildcards))
    return json.dumps(facts, sort_keys=True)
