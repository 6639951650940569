"""Mixtures of speakers: drawn from a corpus, or those of LibriMix's published metadata.

Needs the manifest of their corpus. Makes of each set and part `mixtures/{mixtures}/{part}/metadata.csv`
and, for each shard of it, `{shard}.tsv`, a row a mixture; its audio is beside them in `audio`, which
no rule declares: what is there and whole is kept.
"""

import os
import shlex


localrules:
    fetch_noise,
    fetch_metadata,


rule mixtures:
    """All mixtures of the config."""
    input:
        [
            table
            for name in config["mixtures"]
            for part in parts_of(name)
            for table in mixture_tables(name, part)
        ],


rule fetch_noise:
    """Download the noise of WHAM!."""
    input:
        code=source("fetch_noise"),
    output:
        "resources/noise/wham/fetched.json",
    log:
        f"{LOGS}/fetch_noise.log",
    benchmark:
        f"{BENCHMARKS}/fetch_noise.tsv"
    conda:
        "../envs/corpora.yaml"
    params:
        root=lambda w, output: os.path.dirname(output[0]),
    shell:
        "python {input.code[0]:q} --root {params.root} --output {output} 2> >(tee {log} >&2)"


rule fetch_metadata:
    """Download one of LibriMix's tables of mixtures."""
    input:
        code=source("fetch_metadata"),
    output:
        "resources/mixtures/{metadata}.csv",
    log:
        f"{LOGS}/fetch_metadata/{{metadata}}.log",
    benchmark:
        f"{BENCHMARKS}/fetch_metadata/{{metadata}}.tsv"
    wildcard_constraints:
        metadata=one_of(METADATA),
    conda:
        "../envs/corpora.yaml"
    shell:
        "python {input.code[0]:q} --name {wildcards.metadata} --record resources/checksums.json"
        " --output {output} 2> >(tee {log} >&2)"


rule draw_mixtures:
    """Say who is mixed with whom, how loud, and with what noise."""
    input:
        code=source("draw_mixtures"),
        manifest=recordings_of_mixtures,
        metadata=metadata_tables,
        noise=fetched_noise("draw_mixtures"),
    output:
        f"{RESULTS}/mixtures/{{mixtures}}/{{part}}/metadata.csv",
    log:
        f"{LOGS}/draw_mixtures/{{mixtures}}/{{part}}.log",
    benchmark:
        f"{BENCHMARKS}/draw_mixtures/{{mixtures}}/{{part}}.tsv"
    conda:
        "../envs/corpora.yaml"
    threads: 1
    resources:
        mem_mb=sized(4000, manifest=10),
        runtime=sized(60, manifest=1),
    params:
        config=drawn_mixtures,
        metadata=lambda w, input: " ".join(
            f"--metadata {shlex.quote(file)}" for file in input.metadata
        ),
        noise=noise_option("draw_mixtures"),
        tree=noise_tree("draw_mixtures"),
    shell:
        "python {input.code[0]:q} --config {params.config:q} --part {wildcards.part}"
        " --manifest {input.manifest} {params.metadata} {params.noise} --output {output}"
        " 2> >(tee {log} >&2)"


rule mix_speakers:
    """Mix the speakers of a shard; goes on where it was stopped."""
    input:
        code=source("mix_speakers"),
        metadata=f"{RESULTS}/mixtures/{{mixtures}}/{{part}}/metadata.csv",
        # Not read: a changed recording may leave the metadata as it was.
        manifest=recordings_of_mixtures,
        noise=fetched_noise("mix_speakers"),
    output:
        f"{RESULTS}/mixtures/{{mixtures}}/{{part}}/{{shard}}.tsv",
    log:
        f"{LOGS}/mix_speakers/{{mixtures}}/{{part}}/{{shard}}.log",
    benchmark:
        f"{BENCHMARKS}/mix_speakers/{{mixtures}}/{{part}}/{{shard}}.tsv"
    conda:
        "../envs/corpora.yaml"
    threads: 1
    resources:
        mem_mb=sized(2000, manifest=10),
        runtime=sized(60, metadata=60),
    params:
        config=mixing_settings,
        shards=lambda w: config["mixtures"][w.mixtures]["shards"],
        folder=lambda w, output: os.path.join(os.path.dirname(output[0]), "audio"),
        noise=noise_option("mix_speakers"),
        tree=noise_tree("mix_speakers"),
    shell:
        "python {input.code[0]:q} --config {params.config:q} --metadata {input.metadata} --speech ."
        " {params.noise} --folder {params.folder} --output {output}"
        " --shard $((10#{wildcards.shard})) --shards {params.shards} 2> >(tee {log} >&2)"
