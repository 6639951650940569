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
    pretrained=one_of(config["pretraining"]),
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
include: "rules/pretraining.smk"
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
    pretraining,
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


# By its limit of 100 jobs a second Snakemake looks for jobs again a second after each look that left some waiting,
# and after each job that ends: ever more looks a second, which take processor time from the jobs. Other limits
# of a user's stay (`--max-jobs-per-timespan`).
onstart:
    limiter = workflow.scheduler.job_rate_limiter
    if limiter and (limiter.max_jobs, limiter.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


# Snakemake does not pass a profile's `gpu=0` on to the jobs that it submits; their environment does.
LIMIT = "ETAFLOW_GPUS"
if "gpu" in workflow.global_resources and workflow.global_resources["gpu"].value == 0:
    os.environ[LIMIT] = "0"

for each in workflow.rules:
    if not each.output:
        # A target misses whatever it rests on, and not only the last files.
        each.set_input(lambda wildcards, files=list(each.input): upstream(files))
    elif "code" in each.input.keys():
        # As inputs, files that are older than an output are not compared.
        each.set_params(digest=fingerprint("", *each.input.code))
    asked = dict(each.resources)
    if "gpu" in asked and os.environ.get(LIMIT) == "0":
        asked["gpu"] = type(asked["gpu"])("gpu", 0)
    if "gpu" not in asked or os.environ.get(LIMIT) == "0":
        # A profile's default model of GPU is for jobs of GPUs: SLURM gives one to whoever names it.
        asked.pop("gpu_model", None)
    each.resources = type(each.resources)(asked)
