"""Models: each entry of the config's `models` in a folder of its own.

Makes `resources/models/{model}/model.json`, beside the model's files. A new revision changes that
small file, which everything made with the model has as input. The checksums of single files that
were downloaded are kept in `resources/checksums.json`, which no rule removes.
"""


localrules:
    fetch_model,


rule fetch_model:
    """Download a model at its pinned revision or checksum, or make one with random weights."""
    input:
        code=source("fetch_model"),
        files=local_model_files,
    output:
        "resources/models/{model}/model.json",
    log:
        f"{LOGS}/fetch_model/{{model}}.log",
    benchmark:
        f"{BENCHMARKS}/fetch_model/{{model}}.tsv"
    conda:
        "../envs/speech.yaml"
    params:
        config=fetched_model,
    shell:
        "python {input.code[0]:q} --name {wildcards.model} --config {params.config:q}"
        " --output {output} 2> >(tee {log} >&2)"
