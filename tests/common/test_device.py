"""Threads by the width of the model, and what is said of a busy machine.

Deliberate break: turn the comparison in `threads_for` round, or let `best_threads` leave its number set.
"""

from types import SimpleNamespace

import pytest
import torch

from common import device
from common.device import MachineOptions, best_threads, choose_device, choose_dtype, how_busy, threads_for
from common.errors import UserError

SMALL, LARGE = SimpleNamespace(hidden_size=192, intermediate_size=512), SimpleNamespace(hidden_size=2048,
                                                                                        intermediate_size=8192)


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("name", "says"), [("mps", "nothing here was ever run on Apple's GPUs; use cpu"),
                                            ("xpu", "use cpu"), ("what", "there is no such device")])
def test_devices_that_were_never_tried_are_refused_by_name(name, says):
    with pytest.raises(UserError, match=f"--device {name}.*{says}"):
        choose_device(name)


@pytest.mark.parametrize("native", [True, False])
def test_fast_is_bfloat16_where_it_is_faster(native, monkeypatch):
    monkeypatch.setattr(device, "multiplies_bfloat16", lambda: native)
    cpu = torch.device("cpu")
    assert choose_dtype(cpu)[0] == choose_dtype(cpu, "auto")[0] == torch.float32
    assert choose_dtype(cpu, "fast")[0] == (torch.bfloat16 if native else torch.float32)
    assert ("--dtype fast" in choose_dtype(cpu)[1]) == native
    with pytest.raises(UserError, match="--dtype quick: is not one of auto, fast, float32"):
        choose_dtype(cpu, "quick")


def test_small_models_get_one_thread():
    assert threads_for(192, 512)[0] == 1 and "192 x 512" in threads_for(192, 512)[1]
    assert threads_for(2048, 8192)[0] == 2
    torch.set_num_threads(1)
    assert threads_for(192, 512)[0] == 1


def test_the_programs_set_it_and_say_so(capsys, monkeypatch):
    monkeypatch.setattr(device, "how_busy", lambda threads: "")
    MachineOptions().choose_threads(torch.device("cpu"), LARGE)
    assert torch.get_num_threads() == 2 and capsys.readouterr().out == ""
    MachineOptions(threads=2).choose_threads(torch.device("cpu"), SMALL)
    MachineOptions().choose_threads(torch.device("cuda"), SMALL)
    assert torch.get_num_threads() == 2 and capsys.readouterr().out == ""
    MachineOptions().choose_threads(torch.device("cpu"), SMALL)
    assert torch.get_num_threads() == 1 and "1 CPU thread, since" in capsys.readouterr().out


@pytest.mark.parametrize("capability, own, programs", [
    ((6, 1), torch.float32, torch.float32), ((7, 5), torch.float32, torch.float16),
    ((8, 6), torch.bfloat16, torch.bfloat16), ((9, 0), torch.bfloat16, torch.bfloat16)])
def test_a_card_computes_in_16_bits_where_it_has_tensor_cores_for_them(monkeypatch, capability, own, programs):
    """float16 only where somebody asks for "auto", since a loop of one's own would have to scale its loss."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    card = torch.device("cuda:0")
    assert choose_dtype(card)[0] == own
    for name in ("auto", "fast"):
        dtype, why = choose_dtype(card, name)
        assert dtype == programs and ("multiplies float16 faster" in why) == (programs == torch.float16)


def test_a_card_that_is_not_used_is_said(monkeypatch, tmp_path, capsys):
    driver = tmp_path / "version"
    monkeypatch.setattr(device, "DRIVER", driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device.unused_card() == ""
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n")
    for cuda, says in ((None, "built without CUDA"), ("13.0", "built for CUDA 13.0, for which the driver may be too")):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        said = device.unused_card()
        assert said.startswith("computed on the CPU, though an NVIDIA driver (550.54.15) is here") and says in said
    MachineOptions(threads=1).choose_threads(torch.device("cpu"), SMALL)
    assert said in capsys.readouterr().out
    MachineOptions(threads=1, device="cpu").choose_threads(torch.device("cpu"), SMALL)
    assert said not in capsys.readouterr().out
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device.unused_card() == ""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.unused_card() == ""


def test_a_library_gives_them_back():
    with pytest.raises(ZeroDivisionError), best_threads(SMALL):
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2
    with best_threads(SMALL, 3):  # which somebody asked for
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == 2


def test_a_busy_machine_is_said(monkeypatch, capsys):
    monkeypatch.setattr(device.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(device.os, "getloadavg", lambda: (5.3, 0.0, 0.0), raising=False)
    line = "this machine is busy: 5.3 programs want its 2 cores, so all will take longer"
    assert how_busy(2) == f"{line}; --threads 1 may take less than more threads that wait for one another"
    assert how_busy(1) == line  # who has one thread need not be told
    MachineOptions(threads=2).choose_threads(torch.device("cpu"), SMALL)
    assert "this machine is busy" in capsys.readouterr().out
    monkeypatch.setattr(device.os, "getloadavg", lambda: (2.0, 0.0, 0.0), raising=False)
    assert how_busy(2) == ""
    monkeypatch.delattr(device.os, "getloadavg")
    assert how_busy(2) == ""


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.float8_e4m3fn])
def test_a_dtype_that_nothing_computes_in_is_refused(dtype):
    with pytest.raises(UserError, match=f"--dtype {dtype}: is none that models compute in; known are float32"):
        choose_dtype(torch.device("cpu"), dtype)
    assert choose_dtype(torch.device("cpu"), torch.float64)[0] == torch.float64
