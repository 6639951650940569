"""Corpora: fetched or found, every file checked, one manifest each.

Needs the `corpora` of the config. Makes `manifests/{corpus}.tsv`, the files that were left out with
their reason in `{corpus}.rejected.tsv`, and, without texts, `{corpus}.recordings.tsv` and
`{corpus}/{shard}.tsv`, so that a changed recording touches the shard of its speaker and no other,
and a changed transcript none.
"""


localrules:
    fetch_corpus,


rule manifests:
    """The manifests of all corpora."""
    input:
        expand(f"{RESULTS}/manifests/{{corpus}}.tsv", corpus=config["corpora"]),
        # Snakemake 9.27 does not see another number of shards while one was never made.
        [
            f"{RESULTS}/manifests/{corpus}/{shard}.tsv"
            for corpus in config["corpora"]
            for shard in shards(corpus)
        ],


rule fetch_corpus:
    """Download a corpus, or synthesise the embedded one."""
    input:
        code=source("fetch_corpus"),
    output:
        "resources/corpora/{corpus}/fetched.json",
    log:
        f"{LOGS}/fetch_corpus/{{corpus}}.log",
    benchmark:
        f"{BENCHMARKS}/fetch_corpus/{{corpus}}.tsv"
    priority: ALL_CORES
    conda:
        "../envs/corpora.yaml"
    threads: lambda w: 2 if is_synthesised(w.corpus) else 1
    params:
        config=fetched_part,
        root=lambda w: corpus_root(w.corpus),
    shell:
        "python {input.code[0]:q} --config {params.config:q} --root {params.root:q}"
        " --output {output} --threads {threads} 2> >(tee {log} >&2)"


# The number of shards differs from corpus to corpus, so each has a rule of its own.
for corpus in config["corpora"]:

    rule:
        name:
            f"build_manifest_{corpus}"
        input:
            code=source("build_manifest"),
            fetched=fetched(corpus),
        output:
            manifest=f"{RESULTS}/manifests/{corpus}.tsv",
            recordings=f"{RESULTS}/manifests/{corpus}.recordings.tsv",
            rejected=f"{RESULTS}/manifests/{corpus}.rejected.tsv",
            shards=expand(f"{RESULTS}/manifests/{corpus}/{{shard}}.tsv", shard=shards(corpus)),
        log:
            f"{LOGS}/build_manifest/{corpus}.log",
        benchmark:
            f"{BENCHMARKS}/build_manifest/{corpus}.tsv"
        priority: ALL_CORES
        conda:
            "../envs/corpora.yaml"
        threads: 8
        resources:
            mem_mb=sized(4000),
            runtime=sized(480),
        params:
            config=corpus_settings(corpus),
            root=root_of(corpus),
            tree=found_tree(corpus),
        shell:
            "python {input.code[0]:q} --config {params.config:q} --root {params.root:q}"
            " --manifest {output.manifest} --recordings {output.recordings} --rejected {output.rejected}"
            " --shard-dir $(dirname {output.shards[0]}) --threads {threads} 2> >(tee {log} >&2)"
