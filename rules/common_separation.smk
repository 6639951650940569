# Helper functions of the rules on mixtures and separation.

import json
import os
import shlex

SEPARATION = config.get("separation", {"systems": {}, "mixtures": []})
BASELINE = "mixture"  # a system of its own: the mixtures as they are


def parts_of(mixtures):
    """The parts that a set of mixtures has."""
    entry = config["mixtures"][mixtures]
    return list(entry["metadata"] if "metadata" in entry else entry["counts"])


def mixture_tables(mixtures, part):
    """The tables of a part's shards."""
    names = shard_names(config["mixtures"][mixtures]["shards"])
    return [f"{RESULTS}/mixtures/{mixtures}/{part}/{name}.tsv" for name in names]


def recordings_of_mixtures(wildcards):
    return f"{RESULTS}/manifests/{config['mixtures'][wildcards.mixtures]['corpus']}.recordings.tsv"


def metadata_tables(wildcards):
    """The published tables of a part: fetched by name, or the user's files."""
    names = config["mixtures"][wildcards.mixtures].get("metadata", {}).get(wildcards.part, [])
    return [
        f"resources/mixtures/{name}.csv" if name in METADATA else user_path(name) for name in names
    ]


def drawn_mixtures(wildcards):
    """What the mixtures of a part depend on; another number of test mixtures leaves the training's alone."""
    entry = config["mixtures"][wildcards.mixtures]
    if "metadata" in entry:
        # Their order is that of the mixtures; Snakemake sees only which files they are.
        tables = entry["metadata"][wildcards.part]
        return json.dumps({"speakers": entry["speakers"], "metadata": tables})
    keys = ["speakers", "seed"] + ["validation_speakers"] * (wildcards.part != "test")
    settings = {key: entry[key] for key in keys}
    settings["counts"] = {wildcards.part: entry["counts"][wildcards.part]}
    return json.dumps(settings, sort_keys=True)


def mixing_settings(wildcards):
    """How the rows of metadata are mixed."""
    entry = config["mixtures"][wildcards.mixtures]
    settings = {key: entry[key] for key in ("sample_rate", "mode", "kind")}
    return json.dumps(settings | {"suffix": f".{entry['format']}"}, sort_keys=True)


def noise_folder(wildcards):
    """The folder that noise is read from; None if it is synthesised, or there is none."""
    noise = config["mixtures"][wildcards.mixtures]["noise"]
    if noise == "wham":
        return "resources/noise/wham/wham_noise"
    return user_path(noise["folder"]) if isinstance(noise, dict) else None


def hears_noise(wildcards, reader):
    """Levels are drawn with the noise; of clean mixtures it is then left out."""
    entry = config["mixtures"][wildcards.mixtures]
    read = "metadata" not in entry if reader == "draw_mixtures" else entry["kind"] != "clean"
    return read and noise_folder(wildcards) is not None


def fetched_noise(reader):
    def files(wildcards):
        wham = config["mixtures"][wildcards.mixtures]["noise"] == "wham"
        return (
            "resources/noise/wham/fetched.json" if wham and hears_noise(wildcards, reader) else []
        )

    return files


def noise_option(reader):
    return lambda w: f"--noise {shlex.quote(noise_folder(w))}" if hears_noise(w, reader) else ""


def noise_tree(reader):
    """A user's folder of noise is watched for changes."""

    def digest(wildcards):
        noise = config["mixtures"][wildcards.mixtures]["noise"]
        watched = isinstance(noise, dict) and hears_noise(wildcards, reader)
        return tree_digest(noise_folder(wildcards)) if watched else ""

    return digest


def separator_settings(wildcards):
    """What a training depends on in the config: its checkpoints do not change its result."""
    entry = config["separators"][wildcards.separator]
    return json.dumps({k: v for k, v in entry.items() if k != "checkpoints"}, sort_keys=True)


def separator_start(wildcards):
    """The separator that a training starts from; a new one has none."""
    network = config["separators"][wildcards.separator]["network"]
    return [model(network["pretrained"])] if "pretrained" in network else []


def mixtures_to_learn(part):
    """The training or validation mixtures of a separator."""
    return lambda w: mixture_tables(config["separators"][w.separator]["mixtures"], part)


def trained_separators():
    """The separators of the config that are trained for a step or more."""
    return [name for name, entry in config["separators"].items() if entry["steps"] > 0]


def separating_systems(mixtures):
    """The systems that separate a set of mixtures, in order."""
    return [n for n, entry in SEPARATION["systems"].items() if mixtures in entry["mixtures"]]


def separator_of(system):
    return SEPARATION["systems"][system]["separator"]


def training_of(system):
    """What says which speakers a system's separator was trained on, where that is known."""
    name = separator_of(system)
    if name in config["separators"]:
        return [f"{RESULTS}/separators/{name}/config.json"]
    entry = config["models"][name]
    if entry["architecture"] == "etaflow-separator":
        return [os.path.join(user_path(entry["path"]), "config.json")]
    return []


def separating_settings(wildcards):
    return json.dumps({"resample": SEPARATION["systems"][wildcards.demixer]["resample"]})


def of_each_system(mixtures, name):
    """A file of every system that separates a set of mixtures."""
    return [f"{RESULTS}/separation/{system}/{name}" for system in separating_systems(mixtures)]


def scored_system(wildcards):
    """What the scores of a system are made from, besides the mixtures."""
    if wildcards.demixer == BASELINE:
        return {}
    system = SEPARATION["systems"][wildcards.demixer]
    files = {
        "separated": f"{RESULTS}/separation/{wildcards.demixer}/{wildcards.mixtures}/separated.tsv",
        "separator": training_of(wildcards.demixer),
        "before": [],
    }
    if system["before"]:
        files["before"] = f"{RESULTS}/separation/{system['before']}/{wildcards.mixtures}.tsv"
    return files


def scored_options(wildcards, input):
    """The same as options of the script."""
    given = [(name, input[name]) for name in scored_system(wildcards)]
    return " ".join(f"--{name} {shlex.quote(str(files))}" for name, files in given if files)


def noise_words(entry):
    """What the noise of a set of mixtures is."""
    if not isinstance(entry["noise"], dict):
        return {"pink": "synthesised pink noise", "wham": "of WHAM!", None: None}[entry["noise"]]
    folder = entry["noise"]["folder"]
    shared = "metadata" not in entry and not os.path.isdir(os.path.join(user_path(folder), "tt"))
    return f"of {folder}{', where training and test share it' if shared else ''}"


def sets_of_mixtures():
    """What the page says of each set of mixtures."""
    keys = ("corpus", "metadata", "seed", "speakers", "sample_rate", "mode", "kind", "noise")
    sets = {}
    for name in SEPARATION["mixtures"]:
        entry = config["mixtures"][name]
        sets[name] = {key: entry[key] for key in keys if key in entry} | {"part": "test"}
        if "metadata" in entry:
            sets[name]["metadata"] = " and ".join(entry["metadata"]["test"])
        sets[name]["noise"] = noise_words(entry)
    return json.dumps(sets)


def separation_systems():
    """What the page says of each system."""
    systems = {}
    for name, entry in SEPARATION["systems"].items():
        systems[name] = {key: entry[key] for key in ("separator", "resample", "before")}
        first = separators_before(config, entry["separator"])[-1]
        systems[name]["origin"] = None if first in config["separators"] else first
        systems[name]["mixtures_trained_on"] = mixtures_heard(config, entry["separator"])
    return json.dumps(systems)
