"""python classify.py MODEL WAV [K]: the K best labels of a sound (default 5) and their scores, by stapes_host and the standard library."""

import array
import sys
import wave

from stapes_host import AudioError, Error, Model


def main(path: str, clip: str, top: int = 5) -> None:
    try:
        model = Model(path)
    except (Error, OSError) as error:
        sys.exit(f"classify: {error}")
    try:
        with wave.open(clip) as file:
            if file.getsampwidth() != 2:
                raise AudioError(f"{clip} has {8 * file.getsampwidth()} bits a sample; this example reads 16")
            samples = array.array("h", file.readframes(file.getnframes()))  # on a little-endian machine, as WAV is
            found = model.classify(samples, file.getframerate(), channels=file.getnchannels(), top_k=top)
    except (wave.Error, EOFError, Error, OSError) as error:
        sys.exit(f"classify: {clip}: {error}")
    for label, score in found:
        print(f"{label}\t{score:.6f}")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or not all(word.isdecimal() for word in sys.argv[3:]):
        sys.exit("give a model, a WAV file and perhaps how many labels: python classify.py MODEL WAV [K]")
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
