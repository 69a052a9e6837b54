"""SageMaker's side of the contract, as a tool: behaves towards a server as SageMaker does, and says which sentences it keeps.

python -m container.conformance --command "container/serve serve" --model DIR
python -m container.conformance --image TAG --model DIR
python -m container.conformance --url URL
python -m container.conformance runtime --target URL --port N      the local SageMaker runtime
"""

import argparse
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from container.conformance import report
from container.conformance.plan import STAGES, Run, names
from container.conformance.target import ImageTarget, ProcessTarget, Target, UrlTarget

_OWN_NAMES = ("tokenport", "container/serve", "-m serving")


def main(argv: Sequence[str] | None = None) -> int:
    """0 when nothing failed, 1 when something did, 2 for a wrong command line."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["runtime"]:
        from container.conformance.runtime.__main__ import main as runtime

        return int(runtime(words[1:]) or 0)
    parser = _parser()
    options = parser.parse_args(words)
    known = names()
    if options.list:
        for stage in STAGES:
            for group, checks in stage.groups.items():
                for check in checks:
                    print(f"{group:<14}  {check.name:<22}  {check.sentence}")
        return 0
    if unknown := [name for name in options.only if name not in known and name not in known.values()]:
        parser.error(f"--only: there is no check or group {', '.join(unknown)}; --list shows them")
    target, title = _target(parser, options)
    stages = [chosen for stage in STAGES if (chosen := stage.select(options.only)).groups]
    if options.no_faults:
        stages = [stage for stage in stages if "faults" not in stage.groups]
    run = Run()
    print(f"Conformance of {title}", flush=True)
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        run.carry_out(target, stages, lambda result: print(report.line(result), flush=True))
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        told = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        print(f"conformance: {told}", file=sys.stderr)
        return 2
    print(report.summary(run.results))
    if options.junit:
        report.write_junit(options.junit, run.results, title)
    if options.markdown:
        options.markdown.write_text(report.markdown(run.results, run.faults, title))
    return 1 if any(result.outcome == "fail" for result in run.results) else 0


def _on_sigterm(_number: int, _frame: object) -> None:
    # Unwinds, so that no server is left behind.
    raise SystemExit(128 + signal.SIGTERM)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m container.conformance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--command", help="starts a server; {model} and {port} in it are filled in")
    what.add_argument("--image", metavar="TAG", help="an image of podman's or docker's")
    what.add_argument("--url", help="a server that runs already")
    parser.add_argument("--model", type=Path, metavar="DIR", help="the model folder, for /opt/ml/model")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable for the server; may be repeated")
    parser.add_argument("--profile", choices=("tokenport", "generic"), help="whose settings to use; by the name if absent")
    parser.add_argument("--shm-size", default="64m", help="of an image's /dev/shm (default: docker's own, 64m)")
    parser.add_argument("--start-limit", type=float, default=480.0, metavar="S", help="seconds to get ready (default: SageMaker's 480)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these checks or groups alone")
    parser.add_argument("--no-faults", action="store_true", help="leave out the fault table, which takes a start for each fault")
    parser.add_argument("--list", action="store_true", help="list the checks and end")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write Markdown tables")
    return parser


def _target(parser: argparse.ArgumentParser, options: argparse.Namespace) -> tuple[Target, str]:
    if options.url:
        return UrlTarget(options.url), options.url
    name = options.command or options.image
    if not name:
        parser.error("say what to test: --command, --image or --url")
    if options.model is None:
        parser.error("--model DIR: SageMaker puts a model at /opt/ml/model; name the folder to put there")
    if not options.model.is_dir():
        parser.error(f"--model {options.model}: no such folder")
    pairs = [pair.partition("=") for pair in options.env]
    if wrong := [name for name, separator, _ in pairs if not separator or not name]:
        parser.error(f"--env {wrong[0]}: expected NAME=VALUE")
    environ = {name: value for name, _, value in pairs}
    profile = options.profile or ("tokenport" if any(own in name for own in _OWN_NAMES) else "generic")
    if options.image:
        return (
            ImageTarget(
                options.image,
                options.model.resolve(),
                environ,
                profile == "tokenport",
                start_limit_s=options.start_limit,
                shm_size=options.shm_size,
            ),
            f"image {options.image}",
        )
    program = name.split()[0]
    if not shutil.which(program):
        parser.error(f"--command: there is no program {program!r}")
    return ProcessTarget(name, options.model.resolve(), environ, profile == "tokenport", start_limit_s=options.start_limit), f"`{name}`"


if __name__ == "__main__":
    sys.exit(main())
