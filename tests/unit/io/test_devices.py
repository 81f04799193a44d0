"""Meshes as text, and simulated devices; meshes themselves are tested in tests/device."""

import pytest

from transformer.errors import ConfigError
from transformer.io.devices import mesh_overrides, parse_mesh, simulated


def test_the_cpu_gets_as_many_devices_as_are_asked_for():
    before = {"XLA_FLAGS": "--xla_a=1 --xla_force_host_platform_device_count=2", "HOME": "/"}
    flags = simulated(8, before)["XLA_FLAGS"].split()
    assert flags == ["--xla_a=1", "--xla_force_host_platform_device_count=8"]
    assert simulated(2, {}) == {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}


def test_meshes_in_words():
    assert parse_mesh(None) is None
    assert parse_mesh("2x4x1") == (2, 4, 1)
    words = [
        "--config.mesh.data=2",
        "--config.mesh.fsdp=4",
        "--config.mesh.tensor=1",
        "--config.mesh.sequence=1",
    ]
    assert mesh_overrides((2, 4, 1)) == words


@pytest.mark.parametrize("text", ["2", "2x1", "0x1x1", "2x1x1x1", "axbxc", ""])
def test_meshes_that_are_none(text):
    with pytest.raises(ConfigError, match="must be DATAxFSDPxTENSOR"):
        parse_mesh(text)
