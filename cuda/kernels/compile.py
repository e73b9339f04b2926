"""Compiles every kernels/*.cu to PTX with NVRTC and puts the hash of its sources on top. Called by `build` and `check`.

    compile.py NVRTC_LIBRARY SOURCE_DIR OUT_DIR
"""
import ctypes, hashlib, pathlib, re, sys

library, sources, out = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
nvrtc = ctypes.CDLL(library)
OPTIONS = [b"--gpu-architecture=compute_80", b"--std=c++17"]


def parts(path, seen):
    """The file and everything it includes, each once, in order of first mention."""
    if path in seen:
        return
    seen.append(path)
    for name in re.findall(r'^#include "([^"]+)"', path.read_text(encoding="utf-8"), re.M):
        parts(path.parent / name, seen)


def ok(code, program=None):
    if code != 0:
        if program is not None:
            size = ctypes.c_size_t()
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetProgramLog(program, log)
            print(log.value.decode(), file=sys.stderr)
        sys.exit(f"nvrtc failed with {code}")


for source in sorted(sources.glob("*.cu")):
    files = []
    parts(source, files)
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    headers = files[1:]
    names = (ctypes.c_char_p * len(headers))(*[h.name.encode() for h in headers])
    texts = (ctypes.c_char_p * len(headers))(*[h.read_bytes() for h in headers])
    program = ctypes.c_void_p()
    ok(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.read_bytes(), source.name.encode(), len(headers), texts, names))
    ok(nvrtc.nvrtcCompileProgram(program, len(OPTIONS), (ctypes.c_char_p * len(OPTIONS))(*OPTIONS)), program)
    size = ctypes.c_size_t()
    ok(nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    ok(nvrtc.nvrtcGetPTX(program, text))
    ptx = text.value.decode()
    head = f"// {source.name}, made by cuda/kernels/build; do not edit.\n// sources sha256 {digest.hexdigest()}\n"
    (out / (source.stem + ".ptx")).write_text(head + ptx.strip("\n") + "\n", encoding="utf-8")
    print(f"{source.stem}.ptx  {len(ptx)} bytes")
