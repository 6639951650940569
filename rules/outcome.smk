# Helper functions of the rules that end a run: conversion, report and bundle.

import json
import os


def method_of(system):
    return config["conversion"]["systems"][system]["method"]


def needs_eta(method):
    """Whether a system takes speakers out of features: by its method, or because its vocoder does."""
    vocoder = config["vocoder"][config["conversion"]["vocoder"]]
    return "eta" in method or (method != "original" and vocoder.get("features") == "eta")


def conversion_settings(wildcards):
    """What a system's conversions depend on in the config, as canonical JSON."""
    conversion = config["conversion"]
    system = conversion["systems"][wildcards.system]
    settings = {key: conversion[key] for key in ("topk", "pairs", "seed")}
    settings |= {key: system[key] for key in ("method", "reference_seconds")}
    return json.dumps(settings, sort_keys=True)


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
    if VERIFICATION:
        items += ["verification.html"]
        items += [f"det-{trials}.svg" for trials in VERIFICATION["evaluate"]]
    items += ["training-encoders.svg"] if trained_encoders() else []
    items += ["speakers.svg"] if config["encoders"] else []
    items += ["training-separators.svg"] if trained_separators() else []
    items += ["separation.html"] if SEPARATION["systems"] else []
    for mixtures in SEPARATION["mixtures"]:
        items += [f"separation-{mixtures}.svg", f"separation-listening-{mixtures}.html"]
    return items


def synthesised_systems():
    """The systems whose output is not a recording."""
    return [name for name in compared() if method_of(name) != "original"]


def evaluation(wildcards):
    """What the numbers of the conversion rest on, for the protocol that stands beside them."""
    conversion = config["conversion"]
    recogniser = config["models"].get(conversion["asr"].get("model"), {})
    protocol = {
        "systems": sorted(compared()),
        "corpus": corpus_entry(conversion["corpus"]) | {"name": conversion["corpus"]},
        "judge": config["models"].get(conversion["judge"], {"architecture": "etaflow-encoder"}),
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
        inputs["vocoder_metrics"] = f"{folder}/metrics.tsv"
    if names["eta"] is not None:
        eta, folder = config["eta"][names["eta"]], f"{RESULTS}/eta/{names['eta']}"
        inputs |= {
            "speaker": model(eta["encoder"]),
            "eta": f"{folder}/eta.safetensors",
            "eta_config": f"{folder}/config.json",
        }
    inputs["manifests"] = [
        f"{RESULTS}/manifests/{corpus}.recordings.tsv" for corpus in bundled_corpora()
    ]
    conversion = config.get("conversion", {})
    if names.items() <= conversion.items():
        inputs["metrics"] = f"{RESULTS}/conversion/metrics.tsv"
    return inputs | bundled_verifier() | bundled_separator()


def trained_parts():
    """The corpora that parts of the bundle are trained on in this run: {part: corpora}."""
    entries = {key: config[key][name] for key, name in bundled().items() if name is not None}
    found = {key: corpora_of(entry) for key, entry in entries.items() if "corpus" in entry}
    found["ssl"] = corpora_pretrained(config, config["ssl"][entries["vocoder"]["ssl"]]["model"])
    if "eta" in entries:
        found["speaker"] = corpora_heard(config, entries["eta"]["encoder"])
    return {part: corpora for part, corpora in found.items() if corpora}


def bundled_corpora():
    return sorted({corpus for corpora in trained_parts().values() for corpus in corpora})


def bundled_verifier():
    """The run's verifier and the scores of all systems, if the bundle is to hold them."""
    if not config.get("bundle", {}).get("verifier"):
        return {}
    return {
        "verifier": f"{RESULTS}/verifier/verifier.json",
        # Another revision of it need not change a figure of `verifier.json`.
        "verifier_encoder": model(encoder_of_verifier()),
        "verification_metrics": f"{RESULTS}/verification/metrics.tsv",
    }


def bundled_separator():
    """The separator that the bundle is to hold, if any, and scores where the run has some of it."""
    name = config.get("bundle", {}).get("separator")
    inputs = {} if name is None else {"separator": model(name)}
    if systems_of_separator(name):
        inputs["separation_metrics"] = f"{RESULTS}/separation/metrics.tsv"
    return inputs


def encoder_of_verifier():
    return VERIFICATION["systems"][VERIFICATION["verifier"]["system"]]["encoder"]


def systems_of_separator(name):
    return [system for system in SEPARATION["systems"] if separator_of(system) == name]


def bundle_parts(wildcards, input):
    """The same as arguments of the script."""
    files = {name: input[name] for name in bundle_inputs(wildcards) if name != "manifests"}
    folders = ("vocoder", "eta", "verifier")
    files |= {name: os.path.dirname(files[name]) for name in folders if name in files}
    watched = ("vocoder_config", "vocoder_metrics", "eta_config", "verifier_encoder")
    parts = [
        f"--manifest {corpus}={manifest}"
        for corpus, manifest in zip(bundled_corpora(), input["manifests"])
    ]
    parts += [
        f"--{name.replace('_', '-')} {file}" for name, file in files.items() if name not in watched
    ]
    return " ".join(parts)


def origin(name):
    """Where a model of the registry can be had, and under which licence, as far as it is known."""
    entry = config["models"][name]
    place = entry.get("url", "").partition("?")[0]  # a query may hold a secret
    if "repo" in entry:
        place = f"https://huggingface.co/{entry['repo']}"
    if entry["source"] == "package" and entry["architecture"] in PARTS:
        place = "the bundle that comes with etaflow"
        return {"place": place, "licence": f"that of {place}"}
    return {"place": place, "licence": entry.get("licence", "")}


def bundle_config(wildcards):
    """What the card of the bundle says of the config."""
    names = bundled()
    entries = {key: config[key][name] for key, name in names.items() if name is not None}
    vocoder = entries["vocoder"]
    corpora = {name: config["corpora"][name] for name in bundled_corpora()}
    seeds = {f"corpus {name}": corpus["seed"] for name, corpus in corpora.items()}
    seeds |= {"vocoder": vocoder["seed"]} if "seed" in vocoder else {}
    seeds |= {"conversion": config["conversion"]["seed"]} if "conversion" in config else {}
    origins, shipped = {}, False
    if {"pretrained", "start"} & vocoder.keys():
        first = vocoder.get("pretrained", vocoder.get("start"))
        origins["vocoder"] = origin(first)
        shipped = config["models"][first]["source"] == "package"
    others = {"ssl": config["ssl"][vocoder["ssl"]]["model"]}
    others |= {"speaker": entries["eta"]["encoder"]} if "eta" in entries else {}
    others |= {"verifier": encoder_of_verifier()} if bundled_verifier() else {}
    others |= {"separator": config["bundle"]["separator"]} if bundled_separator() else {}
    # Those that are trained in the run have none.
    origins |= {part: origin(name) for part, name in others.items() if name in config["models"]}
    facts = {"run": config["run"], "seeds": seeds, "origins": origins, **entries}
    facts["trained_on"] = trained_parts()
    facts |= {"shipped_vocoder": True} if shipped else {}
    facts["licences"] = {
        n: corpus["licence"] for n, corpus in corpora.items() if "licence" in corpus
    }
    facts["dtype"] = config.get("bundle", {}).get("dtype", "float32")
    if bundled_separator():
        facts["separated_by"] = systems_of_separator(config["bundle"]["separator"])
    if "metrics" in bundle_inputs(wildcards):
        facts["evaluation"] = json.loads(evaluation(wildcards))
    return json.dumps(facts, sort_keys=True)
