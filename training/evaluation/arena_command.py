"""`groundup arena`: a file of votes to a ranking with its report."""

import logging
import sys
from collections import Counter
from collections.abc import Sequence

from training.config.arena import ArenaConfig
from training.evaluation.arena import Duel, Standing, islands, rank, win_rates
from training.evaluation.report import Picture, Report, Section, Table, check_place
from training.evaluation.votes import read_duels

logger = logging.getLogger(__name__)


def run(config: ArenaConfig) -> None:
    """Rank the models of a file of votes and print the table.

    Raises:
        DataError: the votes cannot be used.
        ReportError: the report cannot be written where it should go.
    """
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    if config.out is not None:
        check_place(config.out)
    duels, unused = read_duels(config.votes)
    standings = rank(
        duels, k_factor=config.k_factor, prior=config.prior, num_resamples=config.resamples, seed=config.seed
    )
    report = describe(config, duels, unused, standings)
    sys.stdout.write(report.sections[0].tables[0].markdown() + "\n")
    for reason, count in unused.items():
        logger.warning("%d votes are not used: %s", count, reason)
    if caveat := caveat_of(duels):
        logger.warning("%s", caveat)
    if config.out is not None:
        report.write(config.out)
        logger.info("wrote %s", config.out / "report.md")


def describe(config: ArenaConfig, duels: Sequence[Duel], unused: Counter[str], standings: Sequence[Standing]) -> Report:
    """Return the report of a ranking."""
    from training.evaluation.charts import draw_grid, draw_intervals  # takes a second to import

    names = [standing.model for standing in standings]
    head = ("model", "Bradley-Terry", "95% interval", "Elo", "95% interval of Elo", "win rate", "won", "tied", "lost")
    rows = [
        (
            each.model,
            round(each.bradley_terry.value),
            f"{each.bradley_terry.low:.0f} to {each.bradley_terry.high:.0f}",
            round(each.elo.value),
            f"{each.elo.low:.0f} to {each.elo.high:.0f}",
            each.win_rate,
            each.wins,
            each.ties,
            each.losses,
        )
        for each in standings
    ]
    ratings = [
        (name, [(r.value, r.low, r.high) for r in found])
        for name, found in (
            ("Bradley-Terry", [each.bradley_terry for each in standings]),
            ("Elo", [each.elo for each in standings]),
        )
    ]
    figures: dict[str, float | int | str] = {"num_votes": len(duels), "num_models": len(names)}
    figures |= {f"votes not used: {reason}": count for reason, count in unused.items()}
    pictures = [
        Picture(
            "ratings.png", "Ratings with 95% intervals", draw_intervals(names, ratings, title="Ratings", label="points")
        ),
        Picture(
            "win-rates.png",
            "How often each won against each",
            draw_grid(names, win_rates(duels, names), title="Row wins against column (a tie is half a win)"),
        ),
    ]
    caveat = caveat_of(duels)
    section = Section(
        "arena", "Ranking", figures, caveat and f"**{caveat}**", [Table("Best first.", head, rows)], pictures
    )
    about: dict[str, float | int | str] = {
        "votes": str(config.votes),
        "scale": "400 points more are odds of ten to one; the mean is 1000",
        "Elo's k factor": config.k_factor,
        "prior of Bradley-Terry (votes)": config.prior,
        "resamples": config.resamples,
    }
    return Report(f"Arena: {config.votes.name}", about, [section])


def caveat_of(duels: Sequence[Duel]) -> str:
    """Say between which models ratings do not compare; empty where all do."""
    groups = islands(duels)
    if len(groups) == 1:
        return ""
    listed = "; ".join(", ".join(sorted(group)) for group in groups)
    return f"Ratings do not compare between these groups, which never met: {listed}."
