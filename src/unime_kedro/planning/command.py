"""``unime plan``: what a run would do and cost, before it is run."""

from __future__ import annotations

from pathlib import Path

import click

from unime_kedro.command_errors import readable_errors


@click.command("plan")
@click.option("--env", "-e", help="Kedro's environment, such as paper.")
@click.option("--pipeline", "--pipelines", "-p", "pipelines", default="", help="mine, train, ...; all without it.")
@click.option("--params", default="", help="As for kedro run: key=value,key=value.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="As for kedro run.")
@click.option("--measure", type=click.IntRange(min=20), metavar="N", help="Run N queries of the real stages here.")
@click.option("--gpu", metavar="NAME", help="Whose hours: a800 (the paper's), a100, h100, ..., cpu.")
@click.option("--flops", type=click.FloatRange(min=1), help="Operations per second of the device at best.")
@click.option("--pairs-per-second", type=click.FloatRange(min=1e-6), help="Stated speed of judging.")
@click.option("--tokens-per-second", type=click.FloatRange(min=1e-6), help="Stated speed of all stages.")
@click.option("--price", type=click.FloatRange(min=0), help="Of a device hour, in any currency.")
@click.option("--sample", type=click.IntRange(min=2), default=200, show_default=True, help="Queries to look at.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the sample.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def plan_command(
    env: str | None,
    pipelines: str,
    params: str,
    config: Path | None,
    measure: int | None,
    gpu: str | None,
    flops: float | None,
    pairs_per_second: float | None,
    tokens_per_second: float | None,
    price: float | None,
    sample: int,
    seed: int,
    as_json: bool,
) -> None:
    """Check everything a run needs, and estimate tokens, hours and money; nothing is run.

    Configuration is resolved and checked, models are read without their weights, a sample of the data is looked at.
    With --measure a sample of the real stages is run here and scaled up.
    """
    import json

    import unime_kedro.settings  # noqa: F401  (switches off usage statistics of what is imported below)
    from unime_kedro.planning.estimate import Speed, as_document, make_estimate
    from unime_kedro.planning.hub import do_not_wait_for_the_hub
    from unime_kedro.planning.options import run_options
    from unime_kedro.planning.settings import read_settings
    from unime_kedro.planning.text import format_estimate

    with readable_errors():
        do_not_wait_for_the_hub()
        options = run_options(env, pipelines, params, config)
        settings = read_settings(options.env, options.pipelines, options.params)
        speed = Speed(gpu, flops, pairs_per_second, tokens_per_second, price, measure or 0)
        estimate = make_estimate(settings, speed, sample, seed)
        click.echo(json.dumps(as_document(estimate), indent=1) if as_json else format_estimate(estimate))
