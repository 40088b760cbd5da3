"""A runtime called from Python, in a process of its own: python -m bench.worker RUNTIME MODEL NETWORK_FOLDER THREADS

It answers as serve/serve.c does: load, run N, outputs FOLDER, memory; and `base`, the memory that Python itself takes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from bench.folders import ROOT
from bench.networks import Arrays


def peak_memory() -> int:
    """The most that was resident, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM")


class Runtime(ABC):
    """Loads a model for a number of threads; run() is one call, in memory that was there before wherever it can be."""

    def __init__(self, model: str, inputs: Arrays, outputs: list[str], threads: int) -> None:
        self.model, self.inputs, self.outputs, self.threads = model, inputs, outputs, threads

    @abstractmethod
    def load(self) -> None: ...

    @abstractmethod
    def run(self) -> None: ...

    @abstractmethod
    def results(self) -> Arrays:
        """Of the last call."""


class OnnxRuntime(Runtime):
    def load(self) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = ort.InferenceSession(self.model, options, providers=["CPUExecutionProvider"])
        self._binding = session.io_binding()
        for name, array in self.inputs.items():
            self._binding.bind_cpu_input(name, array)
        for name in self.outputs:
            self._binding.bind_output(name)
        self._session = session

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def results(self) -> Arrays:
        return dict(zip(self.outputs, self._binding.copy_outputs_to_cpu(), strict=True))


class OpenVino(Runtime):
    def load(self) -> None:
        import openvino as ov

        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",  # bfloat16 is its choice where there is an AMX unit
            "EXECUTION_MODE_HINT": "ACCURACY",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        network = ov.Core().compile_model(self.model, "CPU", options)
        self._request = network.create_infer_request()
        for name, array in self.inputs.items():
            self._request.set_tensor(name, ov.Tensor(array))

    def run(self) -> None:
        self._request.infer()

    def results(self) -> Arrays:
        return {name: np.array(self._request.get_tensor(name).data) for name in self.outputs}


class Mnn(Runtime):
    def load(self) -> None:
        import MNN

        manager = MNN.nn.create_runtime_manager(({"backend": 0, "precision": "high", "numThread": self.threads},))
        names = list(self.inputs)
        self._module = MNN.nn.load_module_from_file(self.model, names, self.outputs, runtime_manager=manager)
        arrays = (a.astype(np.int32) if a.dtype == np.int64 else a for a in self.inputs.values())
        self._given = [MNN.expr.const(a, list(a.shape), MNN.expr.NCHW) for a in arrays]

    def run(self) -> None:
        self._found = self._module.forward(self._given)
        if len(self._found) != len(self.outputs):
            raise RuntimeError("it computes nothing; its log says why")
        for value in self._found:
            value.read()  # it computes when asked for

    def results(self) -> Arrays:
        return {name: np.array(v.read()) for name, v in zip(self.outputs, self._found, strict=True)}


class TorchEager(Runtime):
    def load(self) -> None:
        sys.path[:0] = [str(ROOT / "training"), str(ROOT / "tests/models")]  # the classes of the pickled network
        import torch

        torch.set_num_threads(self.threads)
        self._torch = torch
        self._module = self._compiled(torch.load(self.model, weights_only=False))
        self._given = [torch.from_numpy(a) for a in self.inputs.values()]

    def _compiled(self, module: Any) -> Any:
        return module

    def run(self) -> None:
        with self._torch.inference_mode():
            self._found = self._module(*self._given)

    def results(self) -> Arrays:
        found = self._found if isinstance(self._found, tuple) else (self._found,)
        return {name: v.numpy() for name, v in zip(self.outputs, found, strict=True)}


class TorchInductor(TorchEager):
    def _compiled(self, module: Any) -> Any:
        torch = self._torch
        torch._dynamo.config.capture_dynamic_output_shape_ops = True  # the tokens of an expert
        torch._inductor.config.freezing = True  # weights packed once
        return torch.compile(module)

    def run(self) -> None:
        with self._torch.no_grad():  # freezing does not go with inference_mode
            self._found = self._module(*self._given)


class Iree(Runtime):
    def load(self) -> None:
        from iree import runtime

        config = runtime.Config("local-task" if self.threads > 1 else "local-sync")
        self._config = config
        module = runtime.VmModule.mmap(config.vm_instance, self.model)
        context = runtime.SystemContext(
            vm_modules=[runtime.create_hal_module(config.vm_instance, config.device), module], config=config
        )
        (name,) = (n for n in module.function_names if not n.startswith("__") and not n.endswith("$async"))
        self._function = context.modules[module.name][name]
        self._given = [runtime.asdevicearray(config.device, a) for a in self.inputs.values()]

    def run(self) -> None:
        found = self._function(*self._given)
        self._found = found if isinstance(found, (tuple, list)) else (found,)
        for value in self._found:
            value.to_host()

    def results(self) -> Arrays:
        return {name: np.array(v.to_host()) for name, v in zip(self.outputs, self._found, strict=True)}


RUNTIMES: dict[str, type[Runtime]] = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "mnn": Mnn,
    "torch-eager": TorchEager,
    "torch-inductor": TorchInductor,
    "iree": Iree,
}


def answer(runtime: Runtime, line: str, base: int) -> str:
    verb, *rest = line.split()
    if verb == "load":
        start = time.perf_counter()
        runtime.load()
        return f"{(time.perf_counter() - start) * 1e3:.4f}"
    if verb == "run":
        times = []
        for _ in range(int(rest[0])):
            start = time.perf_counter()
            runtime.run()
            times.append(f"{(time.perf_counter() - start) * 1e3:.4f}")
        return " ".join(times)
    if verb == "outputs":
        for name, array in runtime.results().items():
            np.save(Path(rest[0]) / f"{name}.npy", array)
        return ""
    return str(base if verb == "base" else peak_memory())


def main() -> None:
    name, model, folder, threads = sys.argv[1:]
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a runtime prints is no reply
    facts = json.loads((Path(folder) / "network.json").read_text())
    inputs = {n: np.load(Path(folder) / "inputs" / f"{n}.npy") for n in facts["inputs"]}
    runtime = RUNTIMES[name](model, inputs, facts["outputs"], int(threads))
    base = peak_memory()
    for line in sys.stdin:
        try:
            reply = f"ok {answer(runtime, line, base)}"
        except Exception as failure:
            reply = f"error {type(failure).__name__}: {' '.join(str(failure).split())[:500]}"
        print(reply.rstrip(), file=replies)
    os._exit(0)  # some runtimes' threads do not end


if __name__ == "__main__":
    main()
