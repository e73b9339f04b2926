"""Assembles every .ptx of a folder and reports what each kernel takes. Fails if one spills. Called by `check`.

    assemble.py PTXAS FOLDER [programs [CHIP]]

With `programs` the files are of programs that the engine wrote: a line for all of them, on every chip or that one. A
kernel of those that takes all registers there are may spill a few bytes.
"""
import concurrent.futures, pathlib, re, subprocess, sys

ptxas, folder = sys.argv[1], pathlib.Path(sys.argv[2])
# Registers of a thread, at most; bytes that a kernel which has them all may spill.
ALL, FEW = 255, 32
CHIPS = sys.argv[4:] or ["sm_80", "sm_90", "sm_100"]


def assemble(job):
    """Kernel -> (registers, static shared bytes, spilled bytes) of one file on one chip."""
    chip, file = job
    run = subprocess.run([ptxas, "-v", f"-arch={chip}", str(file), "-o", "/dev/null"], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{file.name} for {chip}:\n{run.stderr}")
    found, name, spilled = {}, None, 0
    for line in run.stderr.splitlines():
        if entry := re.search(r"Compiling entry function '(\w+)'", line):
            name = entry[1]
        elif spill := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            stack = int(re.search(r"(\d+) bytes stack frame", line)[1])
            spilled = int(spill[1]) + int(spill[2]) + stack
        elif used := re.search(r"Used (\d+) registers", line):
            smem = re.search(r"(\d+) bytes smem", line)
            found[name] = (int(used[1]), int(smem[1]) if smem else 0, spilled)
    return found


files = sorted(folder.glob("*.ptx"))
jobs = [(chip, file) for file in files for chip in CHIPS]
with concurrent.futures.ThreadPoolExecutor() as pool:
    results = dict(zip(jobs, pool.map(assemble, jobs)))
if sys.argv[3:4] == ["programs"]:
    for chip in CHIPS:
        kernels = {f"{file.name} {name}": row for file in files for name, row in results[chip, file].items()}
        # A kernel that has all registers there are may lack a few.
        lacks = [name for name, row in kernels.items() if row[0] == ALL and 0 < row[2] <= FEW]
        spills = [name for name, row in kernels.items() if row[2] > 0 and name not in lacks]
        most = max(row[0] for row in kernels.values())
        print(f"{chip}: {len(files)} programs, {len(kernels)} kernels, at most {most} registers, {len(lacks)} lack some")
        if spills:
            sys.exit(f"{chip}: {len(spills)} of them spill registers: " + ", ".join(spills))
    sys.exit(0)
bad = []
print(f"{'kernel':40} {'static':>7}  " + "  ".join(f"{chip + ' registers':>16}" for chip in CHIPS) + "  spilled bytes")
for file in files:
    for name in sorted(results[CHIPS[0], file]):
        rows = [results[chip, file][name] for chip in CHIPS]
        spills = [row[2] for row in rows]
        print(f"{name:40} {rows[0][1]:7}  " + "  ".join(f"{row[0]:16}" for row in rows) + "  " + " ".join(map(str, spills)))
        if any(spills):
            bad.append(name)
if bad:
    sys.exit("these kernels spill registers: " + ", ".join(bad))
