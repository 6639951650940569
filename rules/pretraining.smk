"""Small WavLMs that are pretrained here.

Needs the manifests of their corpora, and the model that a network goes on from or whose layer it
predicts. Makes `codes/{pretrained}.safetensors`, the cluster of each frame, and
`pretraining/{pretrained}/model.safetensors` with `config.json`, `preprocessor_config.json`, `model.json`
(so that it stands wherever a WavLM of `models` does), and `metrics.tsv`.
"""


rule pretraining:
    """All WavLMs that the config pretrains."""
    input:
        expand(f"{RESULTS}/pretraining/{{pretrained}}/model.json", pretrained=config["pretraining"]),


rule cluster_frames:
    """Cluster the frames of corpora, by MFCCs or a layer of a model: what is predicted."""
    input:
        code=source("cluster_frames"),
        manifests=manifests_of_pretraining(".recordings"),
        model=model_of_targets,
    output:
        f"{RESULTS}/codes/{{pretrained}}.safetensors",
    log:
        f"{LOGS}/cluster_frames/{{pretrained}}.log",
    benchmark:
        f"{BENCHMARKS}/cluster_frames/{{pretrained}}.tsv"
    conda:
        "../envs/speech.yaml"
    threads: 2
    resources:
        gpu=lambda w: int("model" in config["pretraining"][w.pretrained]["targets"]),
        mem_mb=sized(8000),
        runtime=sized(60, manifests=60),
    params:
        config=subtree("pretraining.{pretrained}", "targets"),
        model=lambda w, input: f"--model {input.model}" if input.model else "",
    shell:
        "python -m etaflow.lease {resources.gpu} python {input.code[0]:q}"
        " --config {params.config:q} $(printf ' --manifest %s' {input.manifests}) {params.model}"
        " --output {output} --gpus {resources.gpu} 2> >(tee {log} >&2)"


rule pretrain_ssl:
    """Pretrain a WavLM by masked prediction; resumes where it was stopped."""
    input:
        code=source("pretrain_ssl"),
        # With texts, by which layers are measured.
        manifests=manifests_of_pretraining(""),
        codes=f"{RESULTS}/codes/{{pretrained}}.safetensors",
        model=start_of_pretraining,
    output:
        model=f"{RESULTS}/pretraining/{{pretrained}}/model.json",
        weights=f"{RESULTS}/pretraining/{{pretrained}}/model.safetensors",
        config=f"{RESULTS}/pretraining/{{pretrained}}/config.json",
        preprocessor=f"{RESULTS}/pretraining/{{pretrained}}/preprocessor_config.json",
        metrics=f"{RESULTS}/pretraining/{{pretrained}}/metrics.tsv",
    log:
        f"{LOGS}/pretrain_ssl/{{pretrained}}.log",
    benchmark:
        f"{BENCHMARKS}/pretrain_ssl/{{pretrained}}.tsv"
    conda:
        "../envs/speech.yaml"
    threads: 2
    resources:
        gpu=1,
        nodes=1,
        # Not params, for what train_vocoder says of its own.
        tracker=TRACKER,
        checkpoint_every=lambda w: config["pretraining"][w.pretrained]["checkpoints"]["every"],
        checkpoints_kept=lambda w: config["pretraining"][w.pretrained]["checkpoints"]["keep"],
        mem_mb=sized(16000),
        runtime="2d",
    params:
        config=pretraining_settings,
        folder=f"{RESULTS}/pretraining/{{pretrained}}",
        work=f"{RESULTS}/work/pretrain_ssl/{{pretrained}}",
        model=lambda w, input: f"--model {input.model}" if input.model else "",
    shell:
        f"{LAUNCH} {{input.code[0]:q}}"
        " --config {params.config:q} $(printf ' --manifest %s' {input.manifests})"
        " --codes {input.codes} {params.model}"
        " --output-dir {params.folder} --working-dir {params.work}"
        " --checkpoint-every {resources.checkpoint_every}"
        " --checkpoints-kept {resources.checkpoints_kept} --tracker {resources.tracker}"
        f" --tracker-dir {LOGS}/tensorboard/pretrain_ssl/{{wildcards.pretrained}}"
        " --threads {threads} --gpus {resources.gpu} 2> >(tee {log} >&2)"
