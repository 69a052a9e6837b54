"""`tokenport plan prices`: today's prices of a region, as the file that `tokenport plan --prices` reads.

The one part of planning that needs a network, and therefore not in the planner's room.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from serving.aws.deployment.account import open_account
from serving.aws.price_list import SERVICE_REGION, hosting_prices
from serving.errors import DeployError
from serving.planner.commands.one_line_parser import OneLineParser
from serving.planner.prices import InstancePrice


def run_prices(words: Sequence[str], _environ: Mapping[str, str]) -> int:
    """Print the table, or write it to `--out`.

    Raises:
        DeployError: AWS does not answer, or the file cannot be written.
    """
    parser = OneLineParser(prog="tokenport plan prices", description="Prices of SageMaker hosting, from the AWS Price List API.")
    parser.add_argument("--region", required=True, help="of the endpoint, such as us-east-1")
    parser.add_argument("--out", type=Path, help="the file to write; default: standard output")
    options = parser.parse(words)
    region, out = options["region"], options.get("out")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    text = table_text(hosting_prices(open_account(SERVICE_REGION), region, today), region)
    if out is None:
        print(text, end="")
        return 0
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DeployError(f"--out {out}: cannot be written ({error.strerror})") from error
    print(f"wrote {out}; give it to `tokenport plan MODEL --prices {out}`")
    return 0


def table_text(prices: Sequence[InstancePrice], region: str) -> str:
    """As JSON, an entry a line."""
    note = json.dumps(f"On-demand prices of SageMaker hosting in {region}, read from the AWS Price List API.")
    entries = ",\n".join(f"  {json.dumps(asdict(price))}" for price in prices)
    return f'{{\n "note": {note},\n "entries": [\n{entries}\n ]\n}}\n'
