"""How fast event files are read, against TensorBoard's own reader, and how much memory that takes.

    python benchmarks/training_log_speed.py [--folder DIR] [--images 200] [--image-mb 5]

Part one: 1,000,000 scalars, 20 runs of 50 tags and 1,000 steps, as tensorboardX writes them, by
`EventFolderReader` and by `EventAccumulator` with every point kept. Part two: a log of scalars
with pictures and the same without. Every reading is a process of its own; imports are not timed.
The logs stay in `--folder`, if it is given, and are used again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import google_crc32c
from tensorboard.compat.proto.event_pb2 import Event

from reportgen.training_logs.tensorboard.frames import mask_crc, masked_crc

RUNS, TAGS, STEPS = 20, 50, 1_000
IMAGE_LOG_SCALARS = 20_000
START = 1_700_000_000.0
MIB = 1 << 20


def framed(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    checks = (struct.pack("<I", masked_crc(part)) for part in (length, payload))
    return length + next(checks) + payload + next(checks)


def version() -> bytes:
    return framed(Event(wall_time=START, file_version="brain.Event:2").SerializeToString())


def scalar(tag: str, step: int, value: float) -> bytes:
    event = Event(wall_time=START + step, step=step)
    event.summary.value.add(tag=tag, simple_value=value)
    return framed(event.SerializeToString())


def image(tag: str, step: int, content: bytes) -> Iterator[bytes]:
    """One record in pieces, so that a large picture is not copied."""
    event = Event(wall_time=START + step, step=step)
    picture = event.summary.value.add(tag=tag).image
    picture.width = picture.height = 1024
    picture.encoded_image_string = content
    payload = event.SerializeToString()
    length = struct.pack("<Q", len(payload))
    yield length + struct.pack("<I", masked_crc(length))
    yield payload
    yield struct.pack("<I", mask_crc(google_crc32c.value(payload)))


def write_scalars(folder: Path) -> None:
    for run in range(RUNS):
        home = folder / f"run_{run:02d}"
        home.mkdir(parents=True)
        with (home / "events.out.tfevents.1700000000.host").open("wb") as file:
            file.write(version())
            for step in range(STEPS):
                for tag in range(TAGS):
                    file.write(scalar(f"train/metric_{tag}", step, run + tag / (step + 1)))


def write_images(folder: Path, images: int, size: int) -> None:
    folder.mkdir(parents=True)
    content = b"\x89PNG\r\n\x1a\n" + os.urandom(size - 8)
    every = IMAGE_LOG_SCALARS // images if images else IMAGE_LOG_SCALARS + 1
    with (folder / "events.out.tfevents.1700000000.host").open("wb") as file:
        file.write(version())
        for step in range(IMAGE_LOG_SCALARS):
            file.write(scalar("train/loss", step, 1 / (step + 1)))
            if step % every == 0:
                file.writelines(image("samples", step, content))


def read_reportgen(folder: Path) -> tuple[int, float]:
    from reportgen.training_logs.tensorboard.folder_reader import EventFolderReader

    start = time.perf_counter()
    reader = EventFolderReader(folder)
    reader.update()
    seconds = time.perf_counter() - start
    return sum(len(s) for run in reader.runs for s in run.scalars.values()), seconds


def read_accumulator(folder: Path) -> tuple[int, float]:
    from tensorboard.backend.event_processing.event_accumulator import (
        STORE_EVERYTHING_SIZE_GUIDANCE,
        EventAccumulator,
    )

    start, points, kept = time.perf_counter(), 0, []
    for home in sorted({path.parent for path in folder.rglob("*tfevents*")}):
        reader = EventAccumulator(str(home), size_guidance=STORE_EVERYTHING_SIZE_GUIDANCE)
        reader.Reload()
        points += sum(len(reader.Scalars(tag)) for tag in reader.Tags()["scalars"])
        kept.append(reader)  # a report needs all runs at once
    return points, time.perf_counter() - start


READERS = {"reportgen": read_reportgen, "EventAccumulator": read_accumulator}


def measure(reader: str, folder: Path) -> None:
    """In the child: print what one reading took."""
    points, seconds = READERS[reader](folder)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    peak = usage.ru_maxrss / 1024
    print(json.dumps({"points": points, "seconds": seconds, "peak_mib": peak}))


def row(label: str, reader: str, folder: Path) -> float:
    command = [sys.executable, __file__, "--measure", reader, "--folder", str(folder)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads(out.splitlines()[-1])
    points, seconds, peak = found["points"], float(found["seconds"]), found["peak_mib"]
    print(f"| {label:44} | {points:>9,} | {seconds:8.2f} | {peak:7.0f} |")
    return seconds


def compare(folder: Path, images: int, size: int) -> None:
    logs = {
        "scalars": lambda home: write_scalars(home),
        f"images_{images}_{size}": lambda home: write_images(home, images, size),
        "no_images": lambda home: write_images(home, 0, 8),
    }
    for name, write in logs.items():
        if not (folder / name).is_dir():
            write(folder / name)
    homes = [folder / name for name in logs]
    total = sum(path.stat().st_size for path in homes[1].iterdir()) / MIB
    print(f"| {'log and reader':44} | {'points':>9} | {'read [s]':>8} | {'MiB':>7} |")
    print(f"|{'-' * 46}|{'-' * 11}|{'-' * 10}|{'-' * 9}|")
    own = row("1,000,000 scalars, reportgen", "reportgen", homes[0])
    other = row("1,000,000 scalars, EventAccumulator", "EventAccumulator", homes[0])
    row(f"{images} pictures, {total:,.0f} MiB, reportgen", "reportgen", homes[1])
    row("the same scalars without pictures, reportgen", "reportgen", homes[2])
    print(f"\nreportgen reads the scalars {other / own:.1f} x faster")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--image-mb", type=float, default=5)
    parser.add_argument("--measure", choices=READERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        compare(folder, options.images, int(options.image_mb * MIB))


if __name__ == "__main__":
    main()
