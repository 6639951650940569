"""Features: WavLM or HuBERT cut at a layer, one HDF5 file a shard.

Needs the manifest of the shard and the model. Makes `features/{corpus}/{ssl}-l{layer}/{shard}.h5`.
"""


rule features:
    """The features that the config's Eta models and vocoders need."""
    input:
        [
            shard_files("features", entry["corpus"], entry["ssl"], entry["layer"])
            for section in ("eta", "vocoder")
            for entry in config[section].values()
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
    conda:
        "../envs/etaflow.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=8000,
        runtime="8h",
    params:
        config=subtree("ssl.{ssl}", "normalize", "dtype", "batch_seconds"),
    shell:
        "python {input.code[0]:q} --config {params.config:q} --layer {wildcards.layer}"
        " --manifest {input.manifest} --model {input.model} --output {output}"
        " --gpus {resources.gpu} 2> >(tee {log} >&2)"
