/** The microphone as mono blocks at the model's rate. */

import { StapesError } from './stapes.mjs'

const REASONS = {
  NotAllowedError: 'the microphone was refused: allow it for this page in the browser’s settings',
  NotFoundError: 'no microphone was found: connect one, or choose a clip',
  NotReadableError: 'the microphone is in use by another program: close that one first',
  NotSupportedError: 'this browser cannot bring the microphone to the model’s rate: use another, or choose a clip'
}

/** Calls `hear` with every block, a Float32Array, until the function it resolves to is called; `lost` where the device goes away. */
export async function listen(rate, hear, lost) {
  if (!navigator.mediaDevices) throw new StapesError('the microphone needs a page from https or localhost: serve this one from there')
  let stream, context
  const stop = () => {
    for (const track of stream?.getTracks() ?? []) track.stop()
    if (context && context.state !== 'closed') context.close()
  }
  try {
    // what calls do to a voice, models of sounds were not trained on
    const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false }
    stream = await navigator.mediaDevices.getUserMedia({ audio })
    context = new AudioContext({ sampleRate: rate })
    await context.audioWorklet.addModule('recorder.mjs')
    const recorder = new AudioWorkletNode(context, 'recorder', { numberOfOutputs: 0 })
    recorder.port.onmessage = ({ data }) => hear(data)
    context.createMediaStreamSource(stream).connect(recorder)
    stream.getAudioTracks()[0].onended = lost
    await context.resume()
    return stop
  } catch (error) {
    stop()
    throw new StapesError(REASONS[error.name] ?? `the microphone cannot be used: ${error.message}`)
  }
}
