"""Probes: what Eta-WavLM removes of the speaker, and what it leaves of the content.

Needs the Eta models, and the features, embeddings and manifest of the probed corpus. Makes
`alignments/{corpus}.tsv`, with the utterances left out in `{corpus}.rejected.tsv`, and
`eta/{eta}/probe.tsv`.
"""

PROBE = config.get("probe", {})


if PROBE:

    rule align_texts:
        """Phones and words of the test utterances, where their texts are known."""
        input:
            code=source("align_texts"),
            manifest=f"{RESULTS}/manifests/{{corpus}}.tsv",
        output:
            alignments=f"{RESULTS}/alignments/{{corpus}}.tsv",
            rejected=f"{RESULTS}/alignments/{{corpus}}.rejected.tsv",
        log:
            f"{LOGS}/align_texts/{{corpus}}.log",
        benchmark:
            f"{BENCHMARKS}/align_texts/{{corpus}}.tsv"
        priority: ALL_CORES
        conda:
            "../envs/evaluation.yaml"
        threads: 8
        resources:
            mem_mb=sized(4000),
            runtime=sized(30, manifest=240),
        shell:
            "python {input.code[0]:q} --manifest {input.manifest} --output {output.alignments}"
            " --rejected {output.rejected} --threads {threads} 2> >(tee {log} >&2)"

    rule probe_speakers:
        """Linear probes of speakers, phones and words in raw and eta features."""
        input:
            code=source("probe_speakers"),
            manifest=f"{RESULTS}/manifests/{PROBE['corpus']}.recordings.tsv",
            fit_manifest=recordings_of("eta"),
            features=probed_features,
            embeddings=lambda w: embeddings(PROBE["corpus"], entry_of("eta", w)["encoder"]),
            alignments=f"{RESULTS}/alignments/{PROBE['corpus']}.tsv" if PROBE["content"] else [],
            eta=f"{RESULTS}/eta/{{eta}}/eta.safetensors",
            eta_config=f"{RESULTS}/eta/{{eta}}/config.json",
        output:
            f"{RESULTS}/eta/{{eta}}/probe.tsv",
        log:
            f"{LOGS}/probe_speakers/{{eta}}.log",
        benchmark:
            f"{BENCHMARKS}/probe_speakers/{{eta}}.tsv"
        conda:
            "../envs/evaluation.yaml"
        threads: 1
        resources:
            mem_mb=sized(8000),
            runtime=sized(60, features=0.005),
        params:
            config=subtree("probe", "speakers", "utterances", "frames", "folds", "seed"),
            content=content_of_probe,
        shell:
            "python {input.code[0]:q} {input.features} --config {params.config:q}"
            " --manifest {input.manifest} --fit-manifest {input.fit_manifest}"
            " --embeddings {input.embeddings} --eta $(dirname {input.eta}) {params.content}"
            " --output {output} 2> >(tee {log} >&2)"
