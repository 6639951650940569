"""The bundle: what a user takes away from a run, or from published models alone.

Needs a vocoder and the model of its features; an Eta model and metrics where there are any. Makes
`bundle/`.
"""

if bundled():

    rule bundle:
        """Models, vocoder and Eta model in one folder, with a card that says what they are."""
        input:
            unpack(bundle_inputs),
            code=source("bundle"),
        output:
            f"{RESULTS}/bundle/config.json",
        log:
            f"{LOGS}/bundle.log",
        benchmark:
            f"{BENCHMARKS}/bundle.tsv"
        conda:
            "../envs/etaflow.yaml"
        threads: 1
        resources:
            mem_mb=2000,
            runtime="1h",
        params:
            config=bundle_config,
            parts=bundle_parts,
        shell:
            "python {input.code[0]:q} --config {params.config:q} {params.parts} --output {output}"
            " 2> >(tee {log} >&2)"
