"""What goes between processes comes out as it went in."""

from benchmarks.client import wire
from benchmarks.client.capabilities import Capabilities
from benchmarks.client.target import TargetSpec
from benchmarks.load.plan import Plan, Request
from benchmarks.measuring.record import ClientLoad, Record


def there(value):
    return wire.from_line(wire.to_line({"value": value}))["value"]


def test_everything_survives_the_way():
    message = {"role": "user", "content": "Grüße"}
    plan = Plan((Request(0, "text", 8, at_s=1.5), Request(1, (1, 2), 8), Request(2, (message,), 8, conversation=1)), duration_s=2.0)
    assert wire.plan_from(there(plan)) == plan
    spec = TargetSpec("chat", "http://127.0.0.1:1", extra_body={"a": [1]}, headers={"Authorization": "Bearer x"})
    assert wire.spec_from(there(spec)) == spec
    capabilities = Capabilities(base_path="", notes=("one",))
    assert wire.capabilities_from(there(capabilities)) == capabilities
    record = Record(3, 0.1, 8, sent_s=0.2, arrivals_s=[0.3, 0.4], arrival_tokens=[1, 2], error="e", error_kind="broken")
    assert wire.record_from(there(record)) == record
    load = ClientLoad(0, 1.0, 0.5, 0.01, (0.001, 0.002), 4)
    assert wire.client_load_from(there(load)) == load
