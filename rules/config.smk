# The config: checked before anything runs, and with the entries that it implies.

import os

import jsonschema
import yaml
from snakemake.exceptions import WorkflowError

# Trials that are fetched by name.
TRIAL_LISTS = ("vox1-o", "vox1-e", "vox1-h")
# Tables of mixtures that are fetched by name.
METADATA = [
    f"libri{speakers}mix_{subset}"
    for speakers in (2, 3)
    for subset in ("train-clean-360", "train-clean-100", "dev-clean", "test-clean")
]


# Sections of named entries that a config may leave out.
SECTIONS = (
    "corpora",
    "pretraining",
    "ssl",
    "eta",
    "vocoder",
    "encoders",
    "mixtures",
    "separators",
)


def user_path(path):
    """A path of the config, with `~` and $VARIABLES filled in."""
    return os.path.expanduser(os.path.expandvars(path))


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


def with_defaults(config):
    """The config with what optional keys of trainings and systems stand for."""
    for entry in config["encoders"].values():
        entry.setdefault("trained_layers", None)
    for entry in config["separators"].values():
        entry.setdefault("trained", "all")
    for entry in (*config["encoders"].values(), *config["separators"].values()):
        entry.setdefault("patience", None)
        entry.setdefault("keep", "best")
    verification = config.get("verification", {"systems": {}, "trials": {}})
    for entry in verification["systems"].values():
        if "encoder" in entry:
            for key in ("max_seconds", "as_norm", "calibration"):
                entry.setdefault(key, None)
    for entry in verification["trials"].values():
        if "list" in entry:
            entry.setdefault("missing", "error")
    separation = config.get("separation", {"systems": {}})
    for entry in separation["systems"].values():
        entry.setdefault("mixtures", separation["mixtures"])
        entry.setdefault("resample", False)
        entry.setdefault("before", None)
    return config


def validated(config):
    """The config, or a WorkflowError that names each wrong key, its value and what is allowed."""
    with open(os.path.join(workflow.basedir, "config", "schema.yaml"), encoding="utf-8") as stream:
        schema = yaml.safe_load(stream)
    errors = jsonschema.Draft202012Validator(schema).iter_errors(config)
    lines = [config_lines(error) for error in sorted(errors, key=lambda e: str(e.absolute_path))]
    if not lines:
        for section in SECTIONS:
            config.setdefault(section, {})
        lines = list(dangling_references(config))
    if not lines:
        if "sweep" in config:
            config = with_sweep(config)
        config = with_defaults(with_references(config))
        lines = list(misfits(config))
    if lines:
        raise WorkflowError("the config is wrong:\n" + "\n".join(f"  {line}" for line in lines))
    return config
