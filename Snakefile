# etaflow: speaker identity in self-supervised speech features.
#
# `snakemake -c2` runs config/config.yaml; `--configfile config/NAME.yaml` another study.

import os

from snakemake.utils import min_version

min_version("9.27")


if not workflow.config_settings.configfiles:

    configfile: os.path.join(workflow.basedir, "config", "config.yaml")


report: "rules/captions/workflow.rst"


include: "rules/checks.smk"
include: "rules/checks_speakers.smk"
include: "rules/checks_separation.smk"
include: "rules/config.smk"


config = validated(config)


include: "rules/common.smk"
include: "rules/outcome.smk"
include: "rules/speakers.smk"
include: "rules/common_separation.smk"


wildcard_constraints:
    corpus=one_of(config["corpora"]),
    ssl=one_of(config["ssl"]),
    eta=one_of(config["eta"]),
    vocoder=one_of(config["vocoder"]),
    model=one_of(config["models"]),
    encoder=one_of([*config["models"], *config["encoders"]]),
    cut=r"|-first[\d.]+s",
    verifier=one_of(config.get("verification", {}).get("systems", {})),
    trials=one_of(config.get("verification", {}).get("trials", {})),
    mixtures=one_of(config["mixtures"]),
    part="train|validation|test",
    separator=one_of(config["separators"]),
    demixer=one_of([BASELINE, *SEPARATION["systems"]]),
    system=one_of(config.get("conversion", {}).get("systems", {})),
    layer=r"\d+",
    shard=r"\d{4}",


include: "rules/corpora.smk"
include: "rules/models.smk"
include: "rules/features.smk"
include: "rules/embeddings.smk"
include: "rules/eta.smk"
include: "rules/probe.smk"
include: "rules/vocoder.smk"
include: "rules/conversion.smk"
include: "rules/bundle.smk"
include: "rules/encoders.smk"
include: "rules/verification.smk"
include: "rules/mixtures.smk"
include: "rules/separation.smk"
include: "rules/report.smk"
include: "rules/report_speakers.smk"
include: "rules/report_separation.smk"


localrules:
    all,
    manifests,
    features,
    eta,
    vocoder,
    conversion,
    encoders,
    verification,
    mixtures,
    separators,
    separation,
    report,


rule all:
    default_target: True
    input:
        rules.report.input,
