"""Results as lines on a terminal, as JUnit XML, and as Markdown tables."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from container.conformance.check import Result
from container.conformance.faults import Fault

_NAME_WIDTH = 22
_GROUP_WIDTH = 14


def line(result: Result) -> str:
    """One result."""
    return f"{result.outcome:<4}  {result.group:<{_GROUP_WIDTH}}  {result.check.name:<{_NAME_WIDTH}}  {_one_line(result.told)}"


def summary(results: Sequence[Result]) -> str:
    """How many passed, failed and were skipped."""
    counted = Counter(result.outcome for result in results)
    return f"{counted['pass']} pass, {counted['fail']} fail, {counted['skip']} skipped"


def write_junit(path: Path, results: Sequence[Result], title: str) -> None:
    """JUnit XML, a test case a check."""
    counted = Counter(result.outcome for result in results)
    attributes = {"name": title, "tests": str(len(results)), "failures": str(counted["fail"]), "skipped": str(counted["skip"])}
    suite = ElementTree.Element("testsuite", attributes)
    for result in results:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": result.group, "name": result.check.name, "time": f"{result.seconds:.3f}"}
        )
        if result.outcome == "fail":
            ElementTree.SubElement(case, "failure", {"message": _printable(result.told)}).text = result.check.sentence
        elif result.outcome == "skip":
            ElementTree.SubElement(case, "skipped", {"message": _printable(result.told)})
        ElementTree.SubElement(case, "system-out").text = _printable(f"{result.check.sentence}\n{result.check.source}\n{result.told}")
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def markdown(results: Sequence[Result], faults: Sequence[Fault], title: str) -> str:
    """The table of checks, and where there were faults theirs."""
    rows = [
        f"## {title}",
        "",
        f"{summary(results)}.",
        "",
        "| check | the contract | result | measured, or why not |",
        "| --- | --- | --- | --- |",
    ]
    rows += [f"| `{one.check.name}` | {_source(one)} | {one.outcome} | {_cell(one.told)} |" for one in results]
    if faults:
        rows += [
            "",
            "| fault | /ping | open stream | open request | the process | its last line |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        rows += [_fault_row(fault) for fault in faults]
    return "\n".join(rows) + "\n"


def _fault_row(fault: Fault) -> str:
    health = f"{fault.health} after {fault.unhealthy_s:.2f} s" if fault.unhealthy_s is not None else f"stays {fault.health}"
    ended = f"exits with {fault.exit_code} after {fault.exit_s:.1f} s" if fault.exit_s is not None else "lives on"
    cells = (fault.name, health, fault.stream, fault.answer, ended, fault.last_line)
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _source(result: Result) -> str:
    sentence = _cell(result.check.sentence)
    return f"[{sentence}]({result.check.source})" if result.check.source.startswith("https://") else sentence


def _cell(text: str) -> str:
    return _one_line(text).replace("|", "\\|").replace("<", "&lt;")


def _one_line(text: str) -> str:
    return _printable(" ".join(text.split()))


def _printable(text: str) -> str:
    """What XML 1.0 allows of it."""
    return "".join(character if character in "\n\t" or character.isprintable() else "?" for character in text)
