"""Eta-WavLM: PCA of the speaker embeddings, then one linear equation.

Needs the features and embeddings of a corpus. Makes `eta/{eta}/pca.safetensors`,
`eta/{eta}/eta.safetensors` and its `config.json`.
"""


rule eta:
    """All Eta models of the config, what their sweep finds, and their probes."""
    input:
        expand(f"{RESULTS}/eta/{{eta}}/eta.safetensors", eta=config["eta"]),
        f"{RESULTS}/eta/sweep.tsv" if sweep() else [],
        expand(f"{RESULTS}/eta/{{eta}}/probe.tsv", eta=config["eta"] if "probe" in config else []),


rule fit_pca:
    """Principal components of the training utterances' embeddings."""
    input:
        code=source("fit_pca"),
        manifest=recordings_of("eta"),
        embeddings=embeddings_of("eta"),
    output:
        f"{RESULTS}/eta/{{eta}}/pca.safetensors",
    log:
        f"{LOGS}/fit_pca/{{eta}}.log",
    benchmark:
        f"{BENCHMARKS}/fit_pca/{{eta}}.tsv"
    conda:
        "../envs/speech.yaml"
    threads: 1
    resources:
        mem_mb=sized(2000, embeddings=8),
        runtime=sized(10, embeddings=1),
    params:
        config=subtree("eta.{eta}", "pca", "utterances", "seed"),
    shell:
        "python {input.code[0]:q} --config {params.config:q} --manifest {input.manifest}"
        " --embeddings {input.embeddings} --output {output} 2> >(tee {log} >&2)"


rule fit_eta:
    """Least squares over all training frames, from the sums of each utterance."""
    input:
        code=source("fit_eta"),
        manifest=recordings_of("eta"),
        model=ssl_model_of("eta"),
        features=features_of("eta"),
        embeddings=embeddings_of("eta"),
        pca=pca_of_eta,
    output:
        weights=f"{RESULTS}/eta/{{eta}}/eta.safetensors",
        config=f"{RESULTS}/eta/{{eta}}/config.json",
    log:
        f"{LOGS}/fit_eta/{{eta}}.log",
    benchmark:
        f"{BENCHMARKS}/fit_eta/{{eta}}.tsv"
    conda:
        "../envs/speech.yaml"
    threads: 1
    resources:
        mem_mb=sized(8000, embeddings=4),
        runtime=sized(30, features=0.001),
    params:
        config=subtree("eta.{eta}", "corpus", "ridge", "utterances", "frames", "seed"),
        pca=lambda w, input: f"--pca {input.pca}" if input.pca else "",
        folder=f"{RESULTS}/eta/{{eta}}",
    shell:
        "python {input.code[0]:q} {input.features} --config {params.config:q} {params.pca}"
        " --manifest {input.manifest} --model {input.model} --embeddings {input.embeddings}"
        " --output-dir {params.folder} 2> >(tee {log} >&2)"


rule collect_sweep:
    """R² and probes of every value of the sweep in one table."""
    input:
        code=source("collect_sweep"),
        configs=expand(f"{RESULTS}/eta/{{eta}}/config.json", eta=[e for _, _, e in sweep()]),
        probes=expand(
            f"{RESULTS}/eta/{{eta}}/probe.tsv",
            eta=[e for _, _, e in sweep() if "probe" in config],
        ),
    output:
        f"{RESULTS}/eta/sweep.tsv",
    log:
        f"{LOGS}/collect_sweep.log",
    benchmark:
        f"{BENCHMARKS}/collect_sweep.tsv"
    conda:
        "../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=sized(1000),
        runtime=sized(10),
    params:
        entries=" ".join(
            f"--entry {axis}={swept_value(axis, value)}={RESULTS}/eta/{entry}"
            for axis, value, entry in sweep()
        )
        + (" --probes" if "probe" in config else ""),
    shell:
        "python {input.code[0]:q} {params.entries} --output {output} 2> >(tee {log} >&2)"
