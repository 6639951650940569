"""Speaker embeddings of a whole corpus.

Needs the manifest and the encoder. Makes `embeddings/{corpus}/{encoder}.h5`.
"""


rule embed_speakers:
    """Embed each utterance once, and average each speaker."""
    input:
        code=source("embed_speakers"),
        manifest=f"{RESULTS}/manifests/{{corpus}}.recordings.tsv",
        model=lambda w: model(w.encoder),
    output:
        f"{RESULTS}/embeddings/{{corpus}}/{{encoder}}.h5",
    log:
        f"{LOGS}/embed_speakers/{{corpus}}/{{encoder}}.log",
    benchmark:
        f"{BENCHMARKS}/embed_speakers/{{corpus}}/{{encoder}}.tsv"
    conda:
        "../envs/etaflow.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=4000,
        runtime="8h",
    shell:
        "python {input.code[0]:q} --manifest {input.manifest} --model {input.model}"
        " --output {output} --gpus {resources.gpu} 2> >(tee {log} >&2)"
