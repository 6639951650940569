# Helper functions of the rules on speaker encoders and verification.

import json
import os

VERIFICATION = config.get("verification", {})


def encoder_settings(wildcards):
    """What a training depends on in the config: its checkpoints do not change its result."""
    entry = config["encoders"][wildcards.encoder]
    return json.dumps({k: v for k, v in entry.items() if k != "checkpoints"}, sort_keys=True)


def encoder_start(wildcards):
    """The weights that a training starts from; a new network has none."""
    network = config["encoders"][wildcards.encoder]["network"]
    names = [network[key] for key in ("pretrained", "model") if key in network]
    return [model(name) for name in names]


def manifests_of_pretraining(kind):
    """The manifests, with texts or `.recordings` alone, that a WavLM is pretrained on."""
    return lambda w: [
        f"{RESULTS}/manifests/{corpus}{kind}.tsv"
        for corpus in corpora_of(config["pretraining"][w.pretrained])
    ]


def model_of_targets(wildcards):
    """The model whose layer a pretraining predicts; MFCCs need none."""
    targets = config["pretraining"][wildcards.pretrained]["targets"]
    return [model(targets["model"])] if "model" in targets else []


def start_of_pretraining(wildcards):
    """The WavLM that a pretraining goes on from, if any."""
    network = config["pretraining"][wildcards.pretrained]["network"]
    return [model(network["pretrained"])] if "pretrained" in network else []


def pretraining_settings(wildcards):
    """What a pretraining depends on in the config; targets come as files."""
    entry = config["pretraining"][wildcards.pretrained]
    own = {k: v for k, v in entry.items() if k not in ("corpus", "targets", "checkpoints")}
    return json.dumps(own, sort_keys=True)


def augmentation_trees(wildcards):
    """What lies in the folders that a training's augmentation reads."""
    settings = config["encoders"][wildcards.encoder]["augmentation"] or {}
    folders = [entry["folder"] for entry in settings.values() if "folder" in entry]
    return json.dumps({folder: tree_digest(user_path(folder)) for folder in folders})


def recordings_of_encoder(wildcards):
    """The manifests, without texts, that an encoder is trained on."""
    corpora = corpora_of(config["encoders"][wildcards.encoder])
    return [f"{RESULTS}/manifests/{corpus}.recordings.tsv" for corpus in corpora]


def cut_option(wildcards):
    """The seconds of each utterance that are embedded, as an option of the script."""
    seconds = wildcards.cut.removeprefix("-first").removesuffix("s")
    return f"--max-seconds {seconds}" if seconds else ""


def trials_file(trials):
    return f"{RESULTS}/verification/trials/{trials}.tsv"


def recordings_of_trials(trials):
    return f"{RESULTS}/manifests/{VERIFICATION['trials'][trials]['corpus']}.recordings.tsv"


def trials_settings(wildcards):
    """How trials are drawn, or read from a list."""
    entry = VERIFICATION["trials"][wildcards.trials]
    keys = ("split", "targets", "nontargets", "across_sessions", "seed", "missing")
    return json.dumps({key: entry[key] for key in keys if key in entry}, sort_keys=True)


def trials_list(wildcards):
    """The list that trials are read from: fetched by name, or a file of the user's."""
    name = VERIFICATION["trials"][wildcards.trials].get("list")
    if name is None:
        return []
    return f"resources/trials/{name}.txt" if name in TRIAL_LISTS else user_path(name)


def scored_embeddings(system, corpus):
    """The embeddings of a corpus that a system compares."""
    entry = VERIFICATION["systems"][system]
    seconds = entry["max_seconds"]
    cut = "" if seconds is None else f"-first{seconds:g}s"
    return f"{RESULTS}/embeddings/{corpus}/{entry['encoder']}{cut}.h5"


def scoring_inputs(wildcards):
    """What a system's scores are made from."""
    trials = VERIFICATION["trials"]
    entry = VERIFICATION["systems"][wildcards.verifier]
    if "average" in entry:
        folder = f"{RESULTS}/verification"
        return {
            "scores": [f"{folder}/{name}/{wildcards.trials}.tsv" for name in entry["average"]],
            "score_metrics": [
                f"{folder}/{name}/{wildcards.trials}.metrics.tsv" for name in entry["average"]
            ],
        }
    inputs = {
        "embeddings": scored_embeddings(wildcards.verifier, trials[wildcards.trials]["corpus"])
    }
    if entry["as_norm"]:
        cohort = entry["as_norm"]["cohort"]
        inputs["cohort"] = scored_embeddings(wildcards.verifier, cohort)
        inputs["cohort_manifest"] = f"{RESULTS}/manifests/{cohort}.recordings.tsv"
    if entry["calibration"]:
        name = entry["calibration"]["trials"]
        inputs["calibration_trials"] = trials_file(name)
        inputs["calibration_manifest"] = recordings_of_trials(name)
        inputs["calibration_embeddings"] = scored_embeddings(
            wildcards.verifier, trials[name]["corpus"]
        )
    return inputs


def scoring_options(wildcards, input):
    """The same as options of the script."""
    given = []
    for name in scoring_inputs(wildcards):
        files = [input[name]] if isinstance(input[name], str) else input[name]
        given += [f"--{name.replace('_', '-')} {file}" for file in files]
    return " ".join(given)


def scoring_settings(wildcards):
    """What a system's scores and their intervals depend on in the config."""
    entry = VERIFICATION["systems"][wildcards.verifier]
    settings = {key: VERIFICATION[key] for key in ("bootstrap_rounds", "seed")}
    settings |= {key: entry.get(key) for key in ("max_seconds", "as_norm", "calibration")}
    return json.dumps(settings, sort_keys=True)


def systems_settings():
    """How each system scores, and the corpora that its encoder is trained on in this run."""
    keys = ("encoder", "max_seconds", "as_norm", "average")
    systems = {}
    for name, entry in VERIFICATION["systems"].items():
        systems[name] = {key: entry[key] for key in keys if key in entry}
        systems[name]["corpora"] = corpora_heard(config, entry.get("encoder"))
    return json.dumps(systems)


def trained_encoders():
    """The encoders of the config that are trained for a step or more."""
    return [name for name, entry in config["encoders"].items() if entry.get("steps") != 0]


def systems_of(calibrated):
    """The systems whose scores are calibrated, or those whose are not."""
    systems = VERIFICATION["systems"].items()
    return [name for name, entry in systems if bool(entry.get("calibration")) == calibrated]


def calibration_option(wildcards, output):
    return f"--calibration-output {output.calibration}" if "calibration" in output.keys() else ""


def calibrations(trials, systems):
    """The calibrations of those of these systems that have one."""
    return [
        f"{RESULTS}/verification/{system}/{name}.calibration.json"
        for system in systems
        if system in systems_of(calibrated=True)
        for name in trials
    ]


def verifier_settings(wildcards):
    """What `etaflow verify` says of the numbers that it stands on."""
    chosen = VERIFICATION["verifier"]
    entry = VERIFICATION["systems"][chosen["system"]]
    names = {chosen["trials"]}
    names |= {entry["calibration"]["trials"]} if entry["calibration"] else set()
    facts = {key: entry[key] for key in ("as_norm", "max_seconds")}
    facts |= {"run": config["run"], "trials": chosen["trials"]}
    corpora = {VERIFICATION["trials"][name]["corpus"] for name in names}
    facts["corpora"] = sorted(corpora.union(corpora_heard(config, entry["encoder"])))
    return json.dumps(facts, sort_keys=True)
