"""`tokenport plan cost`: what a load costs on demand, provisioned, or on one's own instances, by simulating its requests one by one."""

import json
from collections.abc import Mapping, Sequence

from rich.console import Console

from serving.errors import PlanError
from serving.planner.commands.cost_case import read_case
from serving.planner.commands.cost_options import add_options
from serving.planner.commands.cost_table import print_table
from serving.planner.commands.one_line_parser import OneLineParser
from serving.planner.cost.quantities import number
from serving.planner.cost.report import make_report

_WIDTH = 160
_DESCRIPTION = """\
What a load costs on demand, provisioned, or on instances of one's own: every option is simulated request by request. Prices are dated and
named under the table; what nobody told is listed as assumed.

  tokenport plan cost --profile business-hours --requests-per-day 20000 --input-tokens 1000 --output-tokens 200 \\
    --api-model meta.llama3-1-8b-instruct-v1:0 --api-speed ttft=500ms,tpot=20ms --slo ttft=2s,e2e=60s \\
    --instance ml.g6.2xlarge --capacity concurrency=16,ttft=600ms,tpot=40ms --cold-start 8m
"""


def run(words: Sequence[str], _environ: Mapping[str, str]) -> int:
    """Compare and print.

    Raises:
        PlanError: an option or a file is wrong, in one line.
    """
    parser = OneLineParser(prog="tokenport plan cost", description=_DESCRIPTION)
    add_options(parser)
    parser.add_argument("--vary", metavar="PERCENT", help="price and load by so much, to see what changes (default: 20)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    given = parser.parse(words)
    vary = number("--vary", given.get("vary", "20"))
    if vary >= 100:
        raise PlanError(f"--vary {vary:g}: write a number of percent between 0 and 100")
    case, notes = read_case(given)
    report = make_report(case, notes, vary=vary / 100)
    if "json" in given:
        print(json.dumps(report, indent=2))
    else:
        # What the table needs, whatever the terminal has: a figure that is cut short is worse than a line that wraps.
        print_table(report, Console(highlight=False, markup=False, width=_WIDTH))
    return 0
