# Helper functions of all rules: paths, the part of the config a rule depends on, the code it runs.

import hashlib
import json
import math
import os
import re
import sys
from functools import cache

from snakemake.exceptions import WorkflowError
from snakemake.iocontainers import Wildcards

sys.path.insert(0, workflow.basedir)
from etaflow.bundles import PARTS, shipped_files
from etaflow.manifest import shard_names
from etaflow.provenance import fingerprint, source_files


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


def upstream(targets):
    """All files that targets are made from, at any remove, as far as jobs make them.

    Snakemake 9.27 does not miss a file whose products are there. A job that failed after a change has
    lost its outputs, and what was made of the old ones would pass for new.
    """
    found, waiting = [], list(targets)
    seen = set(waiting)
    while waiting:
        file = waiting.pop()
        for maker in workflow.rules:
            if any(output.match(file) for output in maker.output):
                found.append(file)
                made_from = maker.expand_input(Wildcards(fromdict=maker.get_wildcards(file)))[0]
                waiting += [each for each in made_from if each not in seen]
                seen.update(made_from)
    return found


def sized(base, **per_mb):
    """What a job asks for: a base, and so much for each MB of the named inputs.

    An attempt that failed, for lack of memory or of time, is followed by one that is given more.
    """

    def asked(wildcards, input, attempt):
        total = base
        for name, factor in per_mb.items():
            files = input.get(name, [])
            files = [files] if isinstance(files, str) else files
            total += factor * sum(os.path.getsize(file) for file in files) / 1e6
        return attempt * math.ceil(total)

    return asked


# --- paths


RESULTS = f"results/{config['run']}"
LOGS = f"logs/{config['run']}"
BENCHMARKS = f"benchmarks/{config['run']}"

# What a training is followed by.
TRACKER = config.get("tracker", "tensorboard") or "none"

# Starts a training, in a process a GPU. How many there are, and on how many machines, is in no
# params: another number is no reason to train again.
LAUNCH = "python -m etaflow.launch --gpus {resources.gpu} --machines {resources.nodes} --"

# Of what leads to the conversions, or is long itself: begun late, it would keep one core while
# nothing is left for the others.
LONG_CHAIN = 1
# Of what takes all cores of a small machine: later, a core that is free would wait for the others.
ALL_CORES = LONG_CHAIN + 1


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
    asked = {
        (corpus, entry["ssl"], entry["layer"]) for entry in makers for corpus in corpora_of(entry)
    }
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
        stage = "prematch" if "prematched" in entry.get("features", "") else "features"
        return [
            file
            for corpus in corpora_of(entry)
            for file in shard_files(stage, corpus, entry["ssl"], entry["layer"])
        ]

    return files


def raw_beside_prematched(wildcards):
    """The features that a vocoder trains on beside prematched ones, if so."""
    entry = entry_of("vocoder", wildcards)
    corpora = corpora_of(entry) if entry["features"] == "raw+prematched" else []
    return [f for c in corpora for f in shard_files("features", c, entry["ssl"], entry["layer"])]


def trained_vocoder(wildcards):
    """What a training depends on in the config: its checkpoints do not change its result."""
    entry = entry_of("vocoder", wildcards)
    return json.dumps({k: v for k, v in entry.items() if k != "checkpoints"}, sort_keys=True)


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


def start_of_vocoder(wildcards):
    """The vocoder that a training starts from; one from nothing has none."""
    entry = entry_of("vocoder", wildcards)
    return [model(entry["start"])] if "start" in entry else []


def eta_options(wildcards, input):
    """The same as options of a script."""
    if "eta" not in input.keys():
        return ""
    return f"--eta {os.path.dirname(input.eta)} --embeddings {input.embeddings}"


def recordings_of(section):
    """The manifests, without texts, of the corpora of an entry of `eta` or `vocoder`."""
    return lambda w: [
        f"{RESULTS}/manifests/{corpus}.recordings.tsv"
        for corpus in corpora_of(entry_of(section, w))
    ]


def embeddings_of(section):
    """The speaker embeddings that an entry of `eta` uses."""
    return lambda w: embeddings(entry_of(section, w)["corpus"], entry_of(section, w)["encoder"])


def embeddings(corpus, encoder):
    return f"{RESULTS}/embeddings/{corpus}/{encoder}.h5"


def model(name):
    """Where a model of the registry, or what was trained here, says what it is."""
    for section in ("encoders", "separators", "pretraining"):
        if name in config[section]:
            return f"{RESULTS}/{section}/{name}/model.json"
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


def is_synthesised(corpus):
    return config["corpora"][corpus]["kind"] in ("mini", "espeak")


def corpus_root(corpus):
    """Where a corpus lies: its `root`, in which {speech_dir} is filled in, or where it is fetched.

    Corpora of one published kind share their downloads.
    """
    entry = config["corpora"][corpus]
    root = entry.get("root")
    if root is None:
        return f"resources/corpora/{corpus if is_synthesised(corpus) else entry['kind']}"
    root = user_path(root)
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
    if is_synthesised(wildcards.corpus):
        keys += ["speakers", "sentences", "languages", "seed"]
    return json.dumps({key: entry[key] for key in keys if key in entry}, sort_keys=True)


def corpus_entry(corpus):
    """A corpus's entry without its licence, which only the bundle's card quotes."""
    return {k: v for k, v in config["corpora"][corpus].items() if k != "licence"}


def corpus_settings(corpus):
    return lambda w: json.dumps(corpus_entry(corpus), sort_keys=True)


def root_of(corpus):
    return lambda w: corpus_root(corpus)


def fetched(corpus):
    """What a corpus without a `root` of its own waits for."""
    found = config["corpora"][corpus].get("root") is not None
    return [] if found else f"resources/corpora/{corpus}/fetched.json"


def found_tree(corpus):
    """A user's folder is watched for changes; published corpora are taken as they are."""
    watched = config["corpora"][corpus]["kind"] == "folder"
    # Only where a job needs it: those on a cluster start Snakemake, too.
    return lambda w: tree_digest(corpus_root(corpus)) if watched else ""


def fetched_model(wildcards):
    """The part of a model's entry that says what to fetch; of one that comes with etaflow its digest.

    As inputs its files would be compared by their time, which every checkout changes.
    """
    entry = {k: v for k, v in config["models"][wildcards.model].items() if k != "licence"}
    if entry["source"] == "package" and entry["architecture"] in PARTS:
        digest = hashlib.blake2b(digest_size=8)
        try:
            for file in shipped_files(entry["architecture"]):
                digest.update(f"{file.name} {file.stat().st_size} ".encode() + file.read_bytes())
        except FileNotFoundError as error:
            raise WorkflowError(f"models.{wildcards.model}: {error}") from error
        entry["digest"] = digest.hexdigest()
    return json.dumps(entry, sort_keys=True)


def local_model_files(wildcards):
    """The files of a folder that a model is, so that a change of them is seen."""
    entry = config["models"][wildcards.model]
    folder = os.path.expanduser(entry["path"]) if entry["source"] == "path" else ""
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
