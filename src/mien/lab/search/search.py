"""`mien search`: many short trainings of one recipe, their keys chosen by Optuna, kept in one database on disk.

study -> take up what was interrupted -> workers: trials -> the study again, for `findings` to write up
"""

from mien.lab.feed.shelf import Shelf
from mien.lab.search.study import MADE, Plan, Report, check_same, open_study, take_up
from mien.lab.search.workers import work_alone, work_together


def search(plan: Plan, report: Report = lambda _: None) -> None:
    """Make trials until ``plan.trials`` of them are finished or pruned; an interrupted one goes on where it stood.

    ``report`` gets an event for every epoch and every end of a trial. Raises ``RecipeError`` for a wrong space,
    ``DataError`` for a folder of another search, or of one on other faces; ``KeyboardInterrupt`` passes, and the same
    call goes on later.
    """
    with open_study(plan) as study:
        check_same(plan, study, Shelf(plan.data)(plan.chosen({})).sha256)
        take_up(study)
        if not study.trials:
            study.enqueue_trial(plan.space.starting_point(plan.chosen({})))  # what is to be beaten
        missing = plan.trials - len(study.get_trials(states=MADE))
    if missing > 0:
        work_alone(plan, missing, report) if plan.workers == 1 else work_together(plan, missing, report)
