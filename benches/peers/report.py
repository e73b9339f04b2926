"""What is made of the numbers: how far gradients are apart, the tables, the files."""

import json
import statistics

MIB = 1 << 20


def apart(ours, theirs):
    """For every gradient of this engine, the largest difference, of the largest entry. NaN and absence are infinite."""
    ours, theirs = tensors(ours), tensors(theirs)
    ratios = {}
    for name, a in ours.items():
        b = theirs.get(name)
        if b is None or len(a) != len(b):
            ratios[name.removeprefix("grad/")] = float("inf")
            continue
        largest = max(map(abs, a), default=0.0)
        # A maximum over NaN would not say so; a sum does.
        differences = [abs(x - y) for x, y in zip(a, b)]
        ratio = max(differences, default=0.0) / (largest or 1.0)
        ratios[name.removeprefix("grad/")] = ratio if sum(differences) == sum(differences) else float("inf")
    return ratios


def tensors(path):
    """Numbers of the tensors of a safetensors file, complex ones as pairs; no package is needed to run the driver."""
    from array import array

    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        if entry["dtype"] not in ("F32", "C64"):
            raise ValueError(f"{path}: {name} is {entry['dtype']}, expected F32 or C64")
        start, end = entry["data_offsets"]
        found[name] = array("f", body[start:end])
    return found


def minimum(result):
    return min(min(seconds) for seconds in result["seconds"])


def median(result):
    return statistics.median(second for seconds in result["seconds"] for second in seconds)


def timed(peers):
    return {peer: result for peer, result in peers.items() if result.get("seconds") and "failed" not in result}


def one_line(peers):
    return ", ".join(f"{peer} {1e3 * minimum(result):.1f}" for peer, result in timed(peers).items()) + " ms"


def summary(results):
    """A row for each case: this engine and the strongest peer."""
    heads = ["case", "retrograd, ms", "strongest peer", "its time, ms", "times as fast", "planned peak, MiB"]
    heads += ["resident, MiB", "peer's resident, MiB", "gradients apart"]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for result in results:
        peers = timed(result.get("peers", {}))
        ours = peers.get("retrograd")
        if not ours:
            yield f"| {result['name']} | skipped: {result.get('skipped', 'not timed')} | | | | | | | |"
            continue
        memory = f"{ours['planned_peak_bytes'] / MIB:.1f} | {ours['resident_bytes'] / MIB:.1f}"
        row = f"| {result['name']} | {both(ours)} |"
        others = {peer: other for peer, other in peers.items() if not peer.startswith("retrograd")}
        if not others:
            yield f"{row} none | | | {memory} | | |"
            continue
        best = min(others, key=lambda peer: minimum(others[peer]))
        other, ratio = others[best], minimum(others[best]) / minimum(ours)
        worst = max(other["gradients_apart"] for other in others.values())
        memory += f" | {other['resident_bytes'] / MIB:.1f}"
        yield f"{row} {best} | {both(other)} | {ratio:.2f} | {memory} | {worst:.0e} |"


def details(results):
    """A row for each case and peer."""
    yield "| case | peer | time, ms | runs | resident, MiB | gradients apart | loss apart |"
    yield "|---|---|---|---|---|---|---|"
    for result in results:
        for peer, other in result.get("peers", {}).items():
            row = f"| {result['name']} | {peer} |"
            if "failed" in other:
                yield f"{row} {other['failed'].replace('|', '/')} | | | | |"
                continue
            time = f"{both(other)} | {sum(map(len, other['seconds']))}" if other["seconds"] else "not timed | 0"
            if other.get("screened"):
                time = f"sat out, {1e3 * min(other['screening_seconds']):.0f} | 1"
            distance = " | "
            if "gradients_apart" in other:
                distance = f"{other['gradients_apart']:.0e} | {other['loss_apart']:.0e}"
            yield f"{row} {time} | {other['resident_bytes'] / MIB:.1f} | {distance} |"


def both(result):
    return f"{1e3 * minimum(result):.1f} ({1e3 * median(result):.1f})"


def lengths(results):
    """A row for each case and peer: bytes, and times in those of this engine without a budget."""
    heads = ["case", "peer", "planned peak, MiB", "measured, MiB", "resident, MiB", "of the largest", "time, ms"]
    heads += ["times as long"]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for result in results:
        peers = result.get("peers", {})
        if not peers:
            yield f"| {result['name']} | skipped: {result.get('skipped')} | | | | | | |"
        able = {peer: other for peer, other in peers.items() if "failed" not in other}
        largest = max((other["resident_bytes"] for other in able.values()), default=1)
        ours = timed(peers).get("retrograd")
        for peer, other in peers.items():
            row = f"| {result['name']} | {peer} |"
            if peer not in able:
                yield f"{row} {other['failed'].replace('|', '/')} | | | | | |"
                continue
            planned, measured = (other.get(f"{kind}_peak_bytes") for kind in ("planned", "measured"))
            row += f" {planned / MIB:.2f} | {measured / MIB:.2f} |" if planned else " | |"
            row += f" {other['resident_bytes'] / MIB:.1f} | {100 * other['resident_bytes'] / largest:.1f} % |"
            seconds = other["seconds"] or [other.get("screening_seconds", [])]
            least = min(map(min, filter(None, seconds)), default=None)
            if least is None:
                yield f"{row} not timed | |"
                continue
            ratio = f"{least / minimum(ours):.2f}" if ours else ""
            yield f"{row} {1e3 * least:.1f}{'' if other['seconds'] else ' (once)'} | {ratio} |"


def markdown(head, results, memory=False):
    """The report."""
    versions = {v for r in results for x in r.get("peers", {}).values() if (v := x.get("version"))}
    return "\n".join(
        [
            "# This engine and its peers",
            "",
            f"- {head['machine']}; {head['threads']} threads; {head['load']}",
            f"- {head['date']}, commit {head['commit']}, {head['compiler']}; {', '.join(sorted(versions))}",
            f"- `{head['command']}`",
            "",
            "Forward, loss after the last step and all gradients, f32. Times are minimum (median). Resident is by how",
            "much the process grew. Times as fast: the strongest peer's minimum over this engine's.",
            "",
            *(lengths(results) if memory else [*summary(results), "", "## Every peer", "", *details(results)]),
            "",
        ]
    )


def write(path, head, results, memory=False):
    """The report, and beside it every number in JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(markdown(head, results, memory))
    path.with_suffix(".json").write_text(json.dumps({"setting": head, "cases": results}, indent=1) + "\n")
