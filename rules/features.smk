"""Features: WavLM or HuBERT cut at a layer, one HDF5 file a shard.

Needs the manifest of the shard and the model. Makes `features/{corpus}/{ssl}-l{layer}/{shard}.h5`.
Layers that the config lists as `together` come from one pass through the model.
"""

DUMP_KEYS = "normalize", "dtype", "batch_seconds", "precision"


rule features:
    """All features that the config asks for."""
    input:
        [
            file
            for corpus, ssl, layer in feature_sets()
            for file in shard_files("features", corpus, ssl, layer)
        ],


rule dump_features:
    """Encode every utterance of a shard, in batches of similar length."""
    input:
        code=source("dump_features"),
        manifest=f"{RESULTS}/manifests/{{corpus}}/{{shard}}.tsv",
        model=lambda w: ssl_model(w.ssl),
    output:
        f"{RESULTS}/features/{{corpus}}/{{ssl}}-l{{layer}}/{{shard}}.h5",
    log:
        f"{LOGS}/dump_features/{{corpus}}/{{ssl}}-l{{layer}}/{{shard}}.log",
    benchmark:
        f"{BENCHMARKS}/dump_features/{{corpus}}/{{ssl}}-l{{layer}}/{{shard}}.tsv"
    wildcard_constraints:
        corpus=corpora_of_single_layers(),
    priority: LONG_CHAIN
    conda:
        "../envs/speech.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=sized(8000),
        # Enough without a GPU, too: WavLM-Large to layer 15 takes 13 minutes an hour of speech.
        runtime=sized(20, manifest=360),
    params:
        config=subtree("ssl.{ssl}", *DUMP_KEYS),
    shell:
        "python -m etaflow.lease {resources.gpu} python {input.code[0]:q}"
        " --config {params.config:q} --layer {wildcards.layer}"
        " --manifest {input.manifest} --model {input.model} --output {output}"
        " --gpus {resources.gpu} --threads {threads} 2> >(tee {log} >&2)"


for (corpus, ssl), layers in passes().items():

    rule:
        name:
            f"dump_features__{corpus}__{ssl}"
        input:
            code=source("dump_features"),
            manifest=f"{RESULTS}/manifests/{corpus}/{{shard}}.tsv",
            model=ssl_model(ssl),
        output:
            expand(
                f"{RESULTS}/features/{corpus}/{ssl}-l{{layer}}/{{{{shard}}}}.h5",
                layer=layers,
            ),
        log:
            f"{LOGS}/dump_features/{corpus}/{ssl}+/{{shard}}.log",
        benchmark:
            f"{BENCHMARKS}/dump_features/{corpus}/{ssl}+/{{shard}}.tsv"
        priority: LONG_CHAIN
        conda:
            "../envs/speech.yaml"
        threads: 1
        resources:
            gpu=1,
            mem_mb=sized(8000),
            runtime=sized(20, manifest=360),
        params:
            config=subtree(f"ssl.{ssl}", *DUMP_KEYS),
            layers=" ".join(f"--layer {layer}" for layer in layers),
            outputs=lambda w, output: " ".join(f"--output {file}" for file in output),
        shell:
            "python -m etaflow.lease {resources.gpu} python {input.code[0]:q}"
            " --config {params.config:q} {params.layers}"
            " --manifest {input.manifest} --model {input.model} {params.outputs}"
            " --gpus {resources.gpu} --threads {threads} 2> >(tee {log} >&2)"
