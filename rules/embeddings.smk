"""Speaker embeddings: one file a shard, joined to one a corpus.

Needs the manifest of the shard and the encoder. Makes `embeddings/{corpus}/{encoder}/{shard}.h5` and
`embeddings/{corpus}/{encoder}.h5`, which the other stages read; `{encoder}-first8s.h5` is of the first 8 s.
"""


localrules:
    gather_embeddings,


rule embed_speakers:
    """Embed every utterance of a shard, in batches of similar length."""
    input:
        code=source("embed_speakers"),
        manifest=f"{RESULTS}/manifests/{{corpus}}/{{shard}}.tsv",
        model=lambda w: model(w.encoder),
    output:
        f"{RESULTS}/embeddings/{{corpus}}/{{encoder}}{{cut}}/{{shard}}.h5",
    log:
        f"{LOGS}/embed_speakers/{{corpus}}/{{encoder}}{{cut}}/{{shard}}.log",
    benchmark:
        f"{BENCHMARKS}/embed_speakers/{{corpus}}/{{encoder}}{{cut}}/{{shard}}.tsv"
    conda:
        "../envs/speech.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=sized(4000),
        runtime=sized(20, manifest=120),
    params:
        cut=cut_option,
    shell:
        "python -m etaflow.lease {resources.gpu} python {input.code[0]:q}"
        " --manifest {input.manifest} --model {input.model}"
        " {params.cut} --output {output} --gpus {resources.gpu} --threads {threads} 2> >(tee {log} >&2)"


rule gather_embeddings:
    """Join the shards of a corpus, and average each speaker."""
    input:
        code=source("gather_embeddings"),
        shards=lambda w: expand(
            f"{RESULTS}/embeddings/{{corpus}}/{{encoder}}{{cut}}/{{shard}}.h5",
            shard=shards(w.corpus),
            **w,
        ),
    output:
        f"{RESULTS}/embeddings/{{corpus}}/{{encoder}}{{cut}}.h5",
    log:
        f"{LOGS}/gather_embeddings/{{corpus}}/{{encoder}}{{cut}}.log",
    benchmark:
        f"{BENCHMARKS}/gather_embeddings/{{corpus}}/{{encoder}}{{cut}}.tsv"
    conda:
        "../envs/speech.yaml"
    shell:
        "python {input.code[0]:q} {input.shards} --output {output} 2> >(tee {log} >&2)"
