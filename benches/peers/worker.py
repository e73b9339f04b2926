"""What the Python workers share: the request, weights and inputs, flushing, timing, memory, the report.

The protocol is that of case.rs: `--request FILE` names a request in JSON; gradients go to a file under this engine's
names; one line of JSON is printed. Nothing here imports a peer, so denormals can be flushed before it starts threads.
"""

import ctypes
import json
import platform
import sys
import time

import numpy

TYPES = {"F32": numpy.float32, "C64": numpy.complex64, "I32": numpy.int32, "F64": numpy.float64}


def read_tensors(path):
    """The arrays of a safetensors file, by name."""
    with open(path, "rb") as file:
        data = file.read()
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        flat = numpy.frombuffer(body[start:end], TYPES[entry["dtype"]])
        arrays[name] = flat.reshape(entry["shape"]).copy()
    return arrays


def write_tensors(path, arrays):
    """Writes arrays to a safetensors file."""
    names = {numpy.dtype(type): name for name, type in TYPES.items()}
    header, parts, offset = {}, [], 0
    for name, array in arrays.items():
        part = numpy.ascontiguousarray(array).tobytes()
        ends = [offset, offset + len(part)]
        header[name] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": ends}
        parts.append(part)
        offset = ends[1]
    header = json.dumps(header).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header + b"".join(parts))


def flush_denormals():
    """Flushes denormals on this thread and on all that it starts from now on.

    The floating-point environment of C holds the control word; a new thread inherits it. x86-64: flush to zero and
    denormals are zero, bits 15 and 6 of MXCSR, the last word of 32 bytes. aarch64: bit 24 of FPCR, the first word.
    """
    word, bits = {"x86_64": (7, 0x8040), "aarch64": (0, 1 << 24)}.get(platform.machine(), (None, 0))
    if word is None:
        return
    libm = ctypes.CDLL("libm.so.6")
    environment = (ctypes.c_uint32 * 16)()
    if libm.fegetenv(environment) == 0:
        environment[word] |= bits
        libm.fesetenv(environment)


class Worker:
    """One request: what to do and with which numbers."""

    def __init__(self):
        with open(sys.argv[sys.argv.index("--request") + 1]) as file:
            self.request = json.load(file)
        self.case = self.request["case"]
        self.variant = self.request["variant"]
        groups = {"model": {}, "batch": {}}
        for name, array in read_tensors(self.request["data"]).items():
            group, name = name.split("/", 1)
            groups[group][name] = array
        self.weights, self.batch = groups["model"], groups["batch"]
        flush_denormals()

    def skip(self, version, reason):
        """Reports that nothing was measured."""
        print(json.dumps({"version": version, "skipped": reason}))

    def finish(self, version, run, gradients, flushed):
        """Measures and reports. `run` gives the loss and the gradients, `gradients` turns these into arrays by name."""
        baseline = reset_resident()
        loss, grads = run()
        start, seconds = time.perf_counter(), []
        while len(seconds) < self.request["least_runs"] or time.perf_counter() - start < self.request["seconds"]:
            started = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started)
        resident = max(0, status_bytes("VmHWM") - baseline)
        arrays = {f"grad/{name}": numpy.asarray(array) for name, array in gradients(grads).items()}
        write_tensors(self.request["grads"], arrays)
        report = {"version": version, "loss": float(loss), "seconds": seconds}
        print(json.dumps(report | {"resident_bytes": resident, "denormals_flushed": bool(flushed)}))


def reset_resident():
    """Starts a new peak of resident memory; what is resident now."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass  # refused to some processes; the peak then counts from the start of the process
    return status_bytes("VmRSS")


def status_bytes(key):
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith(key + ":"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
