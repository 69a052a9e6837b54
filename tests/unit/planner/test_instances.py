"""The table of instances, and machines of one's own."""

import json

import pytest
from botocore.loaders import Loader

from serving.errors import PlanError
from serving.planner.instances import find_gpu, find_instance, load_hardware
from serving.planner.interval import exactly

FAMILIES = {"g4dn", "g5", "g6", "g6e", "g7e", "p4d", "p4de", "p5", "p5e", "p5en", "p6-b200", "p6-b300", "p6e-gb200"}
FAMILIES |= {"inf1", "inf2", "trn1", "trn1n", "trn2"}
MINE = """
gpus:
  - {name: RTX 4090, memory_mib: 24564, usable_mib: 24080, bandwidth_gb_per_s: 1008,
     tflops: {float16: 165}, source: its maker, as_of: 2022-10}
instances:
  - {name: my box, gpu: RTX 4090, num_gpus: 2, link: pcie, price_per_hour: 0.4}
"""


@pytest.fixture(scope="module")
def hardware():
    return load_hardware()


def sagemakers_types():
    shapes = Loader().load_service_model("sagemaker", "service-2")["shapes"]
    return {name for name in shapes["ProductionVariantInstanceType"]["enum"] if name.split(".")[1] in FAMILIES}


def write(tmp_path, text, name="mine.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_every_size_that_sagemaker_hosts_of_these_families_is_there(hardware):
    assert set(hardware.instances) == sagemakers_types()


def test_every_gpu_has_its_source_and_torch_sees_no_more_than_there_is(hardware):
    for gpu in hardware.gpus.values():
        assert gpu.source
        assert gpu.as_of[:2] == "20"
        usable = gpu.usable_bytes
        assert 0.85 * gpu.memory_bytes < usable.low <= usable.estimate <= usable.high <= gpu.memory_bytes


def test_rates_are_dense_8_bits_at_twice_the_rate_of_16(hardware):
    for gpu in hardware.gpus.values():
        for name in gpu.flops_per_s.keys() - {"float16"}:
            assert gpu.flops_per_s[name] == pytest.approx(2 * gpu.flops_per_s["float16"], rel=0.02), gpu.name


def test_several_gpus_have_a_link_and_one_has_none(hardware):
    for instance in hardware.instances.values():
        if instance.unsupported is None:
            assert (instance.link is None) == (instance.num_gpus == 1), instance.name


def test_neuron_and_arm_are_there_with_the_reason_why_not(hardware):
    assert "Neuron" in find_instance("ml.inf2.xlarge", hardware).unsupported
    assert "Neuron" in find_instance("ml.trn1.32xlarge", hardware).unsupported
    assert "Arm" in find_instance("ml.p6e-gb200.36xlarge", hardware).unsupported


def test_a_price_comes_with_its_date_and_source_or_not_at_all(hardware):
    priced = find_instance("ml.g5.xlarge", hardware)
    assert (priced.price_per_hour, priced.price_as_of) == (1.4084, "2025-01-26")
    assert priced.price_source
    unknown = find_instance("ml.p6-b300.48xlarge", hardware)
    assert (unknown.price_per_hour, unknown.price_as_of, unknown.price_source) == (None, None, None)


def test_sagemakers_prefix_may_be_left_out():
    assert find_instance("g6.2xlarge").name == "ml.g6.2xlarge"


def test_a_near_miss_names_the_nearest():
    with pytest.raises(PlanError, match=r"--instance ml\.g6\.3xlarge.*nearest is ml\.g6\.\w*xlarge"):
        find_instance("ml.g6.3xlarge")
    with pytest.raises(PlanError, match=r"--gpu L40.*nearest is L40S"):
        find_gpu("L40")


def test_what_begins_alike_is_nearer_than_what_is_spelled_alike():
    with pytest.raises(PlanError, match=r"--gpu A100.*nearest is A100-\d+GB"):
        find_gpu("A100")


def test_a_gpu_is_found_whatever_its_case():
    assert find_gpu("l40s").name == "L40S"


def test_machines_of_ones_own_come_beside_the_table(tmp_path):
    hardware = load_hardware(write(tmp_path, MINE))
    box = find_instance("my box", hardware)
    assert (box.num_gpus, box.price_per_hour, box.gpu.usable_bytes) == (2, 0.4, exactly(24080 * 2**20))
    assert box.gpu.bandwidth_bytes_per_s == 1008e9
    assert "ml.g6.xlarge" in hardware.instances


def test_json_is_read_as_well_and_a_known_gpu_need_not_be_described(tmp_path):
    text = json.dumps({"instances": [{"name": "a box", "gpu": "H100", "num_gpus": 1}]})
    assert find_instance("a box", load_hardware(write(tmp_path, text, "mine.json"))).gpu.name == "H100"


@pytest.mark.parametrize(
    ("wrong", "right", "words"),
    [
        ("bandwidth_gbps: 1008", "bandwidth_gb_per_s: 1008", "unknown field bandwidth_gbps; the nearest is bandwidth_gb_per_s"),
        ("tflops: {bfloat16: 165}", "tflops: {float16: 165}", "unknown field bfloat16; the nearest is float16"),
        ("memory_mib: .inf", "memory_mib: 24564", "memory_mib inf: must be a number above 0"),
        ("link: pcie, unsupported: false", "link: pcie", "unsupported False: must be text"),
        ("memory_mib: none", "memory_mib: 24564", "memory_mib 'none': must be a number above 0"),
        ("gpu: RTX 4080", "gpu: RTX 4090, num_gpus: 2", "gpu RTX 4080: not known; the nearest is RTX 4090"),
        ("num_gpus: 1.5", "num_gpus: 2", "num_gpus 1.5: must be a whole number"),
        ("link: usb", "link: pcie", "link 'usb': must be nvlink or pcie"),
        ("num_gpus: 2", "num_gpus: 2, link: pcie", "link: missing"),
        ("usable_mib: {low: 2, estimate: 1, high: 3}", "usable_mib: 24080", "low <= estimate <= high"),
    ],
)
def test_a_wrong_field_is_told_by_name(tmp_path, wrong, right, words):
    text = MINE.replace(right, wrong + ", num_gpus: 2" if wrong.startswith("gpu:") else wrong)
    assert text != MINE
    with pytest.raises(PlanError, match="--hardware") as caught:
        load_hardware(write(tmp_path, text))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_that_is_there_twice_is_told(tmp_path):
    twice = MINE + "  - {name: my box, gpu: L4, num_gpus: 1}\n"
    with pytest.raises(PlanError, match=r"--hardware .*: instances: my box is there twice"):
        load_hardware(write(tmp_path, twice))


def test_a_file_that_is_none_is_told_in_one_line(tmp_path):
    with pytest.raises(PlanError, match=r"cannot be read as YAML") as caught:
        load_hardware(write(tmp_path, "gpus: [a\n b: }"))
    assert "\n" not in str(caught.value)
    with pytest.raises(PlanError, match=r"--hardware .*cannot be read"):
        load_hardware(tmp_path / "absent.yaml")
    with pytest.raises(PlanError, match=r"--hardware .*must be a mapping"):
        load_hardware(write(tmp_path, "- a list"))
