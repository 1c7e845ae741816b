// A spectrogram on a canvas: a whole sound at once, or columns that scroll in. 80 dB from dark to light, up to half the rate.

const SIZE = 512;
const HOP = 128;
const RANGE_DB = 80;
const SECONDS = 4; // the width of the canvas while sound goes on

const HANN = Float64Array.from({ length: SIZE }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));
const COLOURS = [[11, 10, 20], [60, 20, 110], [160, 45, 110], [235, 105, 75], [252, 230, 160]];

export class Spectrogram {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.clear();
  }

  clear() {
    this.context.fillStyle = `rgb(${COLOURS[0]})`;
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.rest = new Float32Array(0);
    this.place = 0;
  }

  /** The whole of a sound, over the whole width. */
  whole(samples) {
    this.clear();
    const { width } = this.canvas;
    for (let x = 0; x < width; x++) {
      const middle = Math.round(((x + 0.5) / width) * samples.length);
      this.column(x, Float32Array.from({ length: SIZE }, (_, i) => samples[middle - SIZE / 2 + i] ?? 0));
    }
  }

  /** More of a sound that goes on: what is there moves to the left. */
  more(samples, rate) {
    const sound = new Float32Array(this.rest.length + samples.length);
    sound.set(this.rest);
    sound.set(samples, this.rest.length);
    const { width, height } = this.canvas;
    let at = 0;
    for (; at + SIZE <= sound.length; at += HOP) {
      this.place += (HOP * width) / (SECONDS * rate);
      const columns = Math.floor(this.place);
      if (!columns) continue;
      this.place -= columns;
      this.context.drawImage(this.canvas, columns, 0, width - columns, height, 0, 0, width - columns, height);
      for (let i = 0; i < columns; i++) this.column(width - columns + i, sound.subarray(at, at + SIZE));
    }
    this.rest = sound.slice(at);
  }

  column(x, frame) {
    const { height } = this.canvas;
    const levels = decibels(frame);
    const image = this.context.createImageData(1, height);
    for (let y = 0; y < height; y++) {
      const level = levels[Math.floor(((height - 1 - y) / height) * levels.length)];
      const part = Math.min(1, Math.max(0, 1 + level / RANGE_DB)) * (COLOURS.length - 1);
      const low = Math.min(Math.floor(part), COLOURS.length - 2);
      for (let c = 0; c < 3; c++) image.data[4 * y + c] = COLOURS[low][c] + (part - low) * (COLOURS[low + 1][c] - COLOURS[low][c]);
      image.data[4 * y + 3] = 255;
    }
    this.context.putImageData(image, x, 0);
  }
}

/** Level of each frequency of a frame of SIZE samples, 0 dB a sine at full scale. */
function decibels(frame) {
  const real = Float64Array.from(frame, (sample, i) => sample * HANN[i]);
  const imaginary = new Float64Array(SIZE);
  transform(real, imaginary);
  return Float64Array.from({ length: SIZE / 2 }, (_, i) => 20 * Math.log10(Math.hypot(real[i], imaginary[i]) / (SIZE / 4) + 1e-9));
}

/** The discrete Fourier transform in place, radix 2. */
function transform(real, imaginary) {
  for (let i = 1, j = 0; i < SIZE; i++) {
    let bit = SIZE >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j], real[i]];
      [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
  }
  for (let half = 1; half < SIZE; half *= 2) {
    for (let k = 0; k < half; k++) {
      const [cosine, sine] = [Math.cos((-Math.PI * k) / half), Math.sin((-Math.PI * k) / half)];
      for (let i = k; i < SIZE; i += 2 * half) {
        const j = i + half;
        const [r, m] = [real[j] * cosine - imaginary[j] * sine, real[j] * sine + imaginary[j] * cosine];
        [real[j], imaginary[j]] = [real[i] - r, imaginary[i] - m];
        real[i] += r;
        imaginary[i] += m;
      }
    }
  }
}
