import pytest

from serving.engine.network import network_environment
from serving.errors import SettingsError


def test_on_one_machine_nothing_listens_beyond_loopback():
    assert network_environment({}, is_one_machine=True) == {"VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    assert network_environment({}, is_one_machine=False) == {}


def test_what_the_user_chose_stands():
    environ = {"GLOO_SOCKET_IFNAME": "eth1", "VLLM_PORT": "9", "SAGEMAKER_SAFE_PORT_RANGE": "9000-9010"}
    assert network_environment(environ, is_one_machine=True) == {"VLLM_HOST_IP": "127.0.0.1"}


def test_ports_are_taken_from_the_platforms_range():
    assert network_environment({"SAGEMAKER_SAFE_PORT_RANGE": "9000-9010"}, is_one_machine=False) == {"VLLM_PORT": "9000"}


@pytest.mark.parametrize("ports", ["", "9000", "9010-9000", "0-10", "1-70000", "a-b", "9000-9010-9020"])
def test_a_range_that_is_none_stops_the_start(ports):
    with pytest.raises(SettingsError, match="SAGEMAKER_SAFE_PORT_RANGE: expected FIRST-LAST"):
        network_environment({"SAGEMAKER_SAFE_PORT_RANGE": ports}, is_one_machine=True)
