# What the schema cannot say of mixtures and separation.

import os

SEPARATORS = {"sepformer", "etaflow-separator"}


def dangling_in_separation(config, check):
    """Names that mixtures, separators and systems use, and nothing defines."""

    def check_separator(place, value):
        if value not in config["separators"]:
            yield from check(place, value, "models")

    for name, entry in config["mixtures"].items():
        yield from check(f"mixtures.{name}.corpus", entry["corpus"], "corpora")
    for name, entry in config["separators"].items():
        yield from check(f"separators.{name}.mixtures", entry["mixtures"], "mixtures")
        if "pretrained" in entry["network"]:
            start = entry["network"]["pretrained"]
            yield from check_separator(f"separators.{name}.network.pretrained", start)
    separation = config.get("separation", {"systems": {}, "mixtures": []})
    for name in separation["mixtures"]:
        yield from check("separation.mixtures", name, "mixtures")
    for name, entry in separation["systems"].items():
        place = f"separation.systems.{name}"
        yield from check_separator(f"{place}.separator", entry["separator"])
        for other in entry.get("mixtures", []):
            if other not in separation["mixtures"]:
                known = ", ".join(separation["mixtures"])
                yield f"{place}.mixtures: {other!r} is none of `separation.mixtures`: {known}"
        before = entry.get("before")
        if before is not None and before not in separation["systems"]:
            known = ", ".join(sorted(separation["systems"]))
            yield f"{place}.before = {before!r}: not in `separation.systems`, which has {known}"


def separators_before(config, separator):
    """A separator, the one that it starts from, and so on; ends where a circle closes."""
    names = [separator]
    while names[-1] in config["separators"] and names[-1] not in names[:-1]:
        start = config["separators"][names[-1]]["network"].get("pretrained")
        if start is None:
            break
        names.append(start)
    return names


def mixtures_heard(config, separator):
    """The mixtures that a separator, and those that it starts from, are trained on in this run."""
    names = [n for n in separators_before(config, separator) if n in config["separators"]]
    entries = [config["separators"][name] for name in names]
    return sorted({entry["mixtures"] for entry in entries if entry["steps"] > 0})


def network_of(config, separator):
    """The settings of the new network that a separator began as; None if it began elsewhere."""
    first = separators_before(config, separator)[-1]
    return config["separators"][first]["network"] if first in config["separators"] else None


def sources_of(entry):
    """How many speakers are heard in a mixture."""
    return 1 if entry["kind"] == "single" else entry["speakers"]


def unlike_mixtures(config, place, separator, mixtures, resample=False):
    """Where a separator's rate or number of speakers is not that of mixtures."""
    network, entry = network_of(config, separator), config["mixtures"][mixtures]
    if network is None or "pretrained" in network:
        return
    if network["speakers"] != sources_of(entry):
        yield (
            f"{place}: {separator!r} separates {network['speakers']} speakers, {mixtures!r} has "
            f"{sources_of(entry)}"
        )
    if network["sample_rate"] != entry["sample_rate"] and not resample:
        yield (
            f"{place}: {separator!r} is for {network['sample_rate']} Hz, {mixtures!r} has "
            f"{entry['sample_rate']} Hz"
        )


def systems_before(systems, system):
    """A system, the one before it, and so on; ends where a circle closes."""
    names = [system]
    while names[-1] not in names[:-1] and systems[names[-1]]["before"] is not None:
        names.append(systems[names[-1]]["before"])
    return names


def misfit_mixtures(config):
    """Mixtures that could only fail."""
    for name, entry in config["mixtures"].items():
        place, corpus = f"mixtures.{name}", config["corpora"][entry["corpus"]]
        if isinstance(entry["noise"], dict) and not os.path.isdir(
            user_path(entry["noise"]["folder"])
        ):
            yield f"{place}.noise.folder = {entry['noise']['folder']!r}: there is no such folder"
        if "metadata" in entry:
            if entry["noise"] is None and entry["kind"] != "clean":
                yield f"{place}.noise = None: mixtures of kind {entry['kind']!r} have noise"
            for part, tables in entry["metadata"].items():
                for table in tables:
                    if table not in METADATA and not os.path.isfile(user_path(table)):
                        known = ", ".join(METADATA)
                        yield f"{place}.metadata.{part} = {table!r}: no such file, and none of {known}"
            continue
        for part, count in entry["counts"].items():
            if count < entry["shards"]:
                yield f"{place}.counts.{part} = {count}: fewer than `shards`, {entry['shards']}"
        if "test" in entry["counts"]:
            if not has_test_split(corpus):
                yield f"{place}.counts.test: {entry['corpus']!r} has no test utterances"
            elif not test_speakers_are_others(corpus):
                yield (
                    f"{place}.counts.test: speakers of {entry['corpus']!r} are in both its splits; "
                    "say `split: {by: speaker, …}`"
                )


def misfit_separators(config, kind):
    """Trainings of separators that could only fail."""
    for name, entry in config["separators"].items():
        place, mixtures = f"separators.{name}", config["mixtures"][entry["mixtures"]]
        if name in config["models"] or name in config["encoders"]:
            yield f"{place}: `models` or `encoders` has that name, too; they must differ"
        line = separators_before(config, name)
        if line[-1] == name and len(line) > 1:
            yield f"{place}.network.pretrained: {' from '.join(line)}: none of them comes first"
            continue
        start = entry["network"].get("pretrained")
        if start is None and entry["trained"] != "all":
            yield f"{place}.trained: the network is new, all of it is trained; say all"
        if start is not None and start not in config["separators"]:
            yield from kind(f"{place}.network.pretrained", start, SEPARATORS)
        for part in ("train", "validation"):
            if part not in mixtures.get("metadata", mixtures.get("counts")):
                yield f"{place}.mixtures = {entry['mixtures']!r}: has no part {part!r}"
        validated, drawn = entry["validation_mixtures"], mixtures.get("counts", {})
        if validated is not None and validated > drawn.get("validation", validated):
            yield (
                f"{place}.validation_mixtures = {validated}: {entry['mixtures']!r} has "
                f"{drawn['validation']}; null takes all"
            )
        network = network_of(config, name)
        if isinstance(entry["trained"], dict) and network and "blocks" in network:
            if entry["trained"]["blocks"] > network["blocks"]:
                yield (
                    f"{place}.trained.blocks = {entry['trained']['blocks']}: the network has "
                    f"{network['blocks']}"
                )
        yield from unlike_mixtures(config, f"{place}.mixtures", name, entry["mixtures"])


def misfit_separation(config, kind):
    """Systems that could only fail, or whose numbers would mislead."""
    separation = config["separation"]
    for name in separation["mixtures"]:
        entry = config["mixtures"][name]
        if "test" not in entry.get("metadata", entry.get("counts")):
            yield f"separation.mixtures: {name!r} has no part 'test'"
        if not any(name in each["mixtures"] for each in separation["systems"].values()):
            yield f"separation.mixtures: no system separates {name!r}"
    for name, entry in separation["systems"].items():
        place, separator = f"separation.systems.{name}", entry["separator"]
        if name == "mixture":
            yield f"{place}: that is the name of the mixtures' own scores; choose another"
        if separator not in config["separators"]:
            yield from kind(f"{place}.separator", separator, SEPARATORS)
        for mixtures in entry["mixtures"]:
            yield from unlike_mixtures(
                config, f"{place}.separator", separator, mixtures, entry["resample"]
            )
        if entry["before"] is not None:
            line = systems_before(separation["systems"], name)
            if entry["before"] == name:
                yield f"{place}.before = {name!r}: is this system itself"
            elif line[-1] == name:
                yield f"{place}.before: {' after '.join(line)}: none of them comes first"
            missing = set(entry["mixtures"]) - set(
                separation["systems"][entry["before"]]["mixtures"]
            )
            if missing:
                yield f"{place}.before = {entry['before']!r}: does not separate {', '.join(sorted(missing))}"
