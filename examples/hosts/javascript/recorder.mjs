// An AudioWorklet: what it hears, to the page in blocks of 512 samples.

registerProcessor(
  "recorder",
  class extends AudioWorkletProcessor {
    block = new Float32Array(512);
    filled = 0;

    process([[channel]]) {
      if (!channel) return true; // nothing is connected yet
      for (const sample of channel) {
        this.block[this.filled++] = sample;
        if (this.filled === this.block.length) {
          this.port.postMessage(this.block.slice());
          this.filled = 0;
        }
      }
      return true;
    }
  },
);
