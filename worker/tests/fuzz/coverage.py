"""Which part of the code under test the inputs of each target reached, as the table of docs/fuzz.md.

    coverage.py EXECUTABLE DIRECTORY [--unreached TARGET]

EXECUTABLE is the fuzz test compiled by counted.sh, DIRECTORY holds what it wrote: a file per target, a line per edge with
its address, 1 if a function begins there, 1 if it was reached. binutils' addr2line says in which file an edge lies: the
innermost function of the room, since what the compiler put into it from elsewhere is part of it.
"""

import collections
import pathlib
import re
import subprocess
import sys

# What each target is meant to reach. Files that only open other files and hand them on are part of it.
ROOMS = {
    "gguf": r"weights/gguf/|weights/gguf\.rs|model/gguf\.rs|weights/checkpoint\.rs",
    "gguf-tokenizer": r"text/(gguf|pretokenizers|believed|expressions|tokenizer|detokenizer|template)\.rs|text\.rs",
    "safetensors": r"weights/(safetensors|checkpoint|paired)\.rs",
    "config": r"model/(config|raw|fields|rope)\.rs|model/families",
    "tokenizer": r"text/(files|believed|expressions|tokenizer|detokenizer|template)\.rs|text\.rs",
    "frames": r"shards/(frames|tree|parcel|identity)\.rs|shards/pipeline",
}
# Foreign code behind a target.
FOREIGN = {"gguf-tokenizer": "tokenizers-", "tokenizer": "tokenizers-"}


def places(executable, addresses):
    """File and line of each address: for each the functions from the innermost out."""
    asked = "\n".join(addresses) + "\n"
    command = ["addr2line", "-a", "-i", "-e", executable]
    said = subprocess.run(command, input=asked, capture_output=True, text=True, check=True).stdout
    found, current = {}, None
    for line in said.splitlines():
        if line.startswith("0x"):
            current = found.setdefault(hex(int(line, 16)), [])
        else:
            file, _, number = line.split(" ")[0].rpartition(":")
            current.append((file, number))
    return found


def read(path):
    """Address, begins a function, reached."""
    return [(a, b == "1", c == "1") for a, b, c in (line.split() for line in path.read_text().splitlines())]


def own(stack, pattern):
    """The innermost place whose file matches, without what leads to the crate."""
    for file, line in stack:
        if line.isdigit() and line != "0" and re.search(pattern, file):
            return re.sub(r"^.*?(worker/src/|tokenizers-[^/]*/src/)", r"\1", file), line
    return None


def table(edges, known, pattern):
    """By file: edges present and reached, lines with edges and those of them with one that was reached; lines without."""
    lines = collections.defaultdict(lambda: [0, 0])
    for address, _, reached in edges:
        place = own(known.get(address, []), pattern)
        if place:
            lines[place][0] += 1
            lines[place][1] += reached
    files = collections.defaultdict(lambda: [0, 0, 0, 0])
    for (file, _), (present, reached) in lines.items():
        for index, count in enumerate([present, reached, 1, reached > 0]):
            files[file][index] += count
    return files, [place for place, (_, reached) in lines.items() if not reached]


def total(files):
    """The sums of all files."""
    return [sum(column) for column in zip(*files.values())] or [0, 0, 0, 0]


def main():
    executable, directory = sys.argv[1], pathlib.Path(sys.argv[2])
    targets = {name: read(directory / name) for name in ROOMS if (directory / name).is_file()}
    known = places(executable, sorted({address for edges in targets.values() for address, _, _ in edges}))
    found = {name: table(edges, known, rf"worker/src/(?:{ROOMS[name]})") for name, edges in targets.items()}
    if len(sys.argv) > 4:
        for file, line in sorted(found[sys.argv[4]][1], key=lambda place: (place[0], int(place[1]))):
            print(f"{file}:{line}")
        return
    print("| target | lines with code | reached | | edges | reached | edges of `tokenizers` | reached |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (files, _) in found.items():
        edges, reached, lines, seen = total(files)
        others = total(table(targets[name], known, FOREIGN[name])[0])[:2] if name in FOREIGN else ["", ""]
        cells = [name, lines, seen, f"{100 * seen / lines:.0f} %", edges, reached, *others]
        print("| " + " | ".join(map(str, cells)) + " |")
    print("\n| target | file | lines with code | reached |\n|---|---|---|---|")
    for name, (files, _) in found.items():
        for file, (_, _, lines, seen) in sorted(files.items()):
            print(f"| {name} | `{file}` | {lines} | {seen} |")


main()
