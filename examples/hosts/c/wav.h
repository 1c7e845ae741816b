/* wav.h: a WAV file as float samples. PCM of 16, 24 or 32 bits and float of 32, plain or WAVE_FORMAT_EXTENSIBLE.

   Every size in the file is checked against what is there. A file that ends within its samples is an error; a writer that could not go
   back to say how many there are, as a pipe cannot, says 0xFFFFFFFF, and then they go on to the end. */
#ifndef WAV_H
#define WAV_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct wav {
    float *samples; /* frames x channels, interleaved, full scale 1.0; free() it */
    size_t frames;
    int channels;
    int rate;
} wav;

#define WAV_MOST_BYTES ((size_t)1 << 30) /* of a file */

static uint32_t wav_number(const unsigned char *at, int bytes) {
    uint32_t value = 0;
    for (int i = 0; i < bytes; i++) value |= (uint32_t)at[i] << (8 * i);
    return value;
}

/* The whole file, whatever kind it is; NULL with `problem` told. */
static unsigned char *wav_contents(const char *path, size_t *size, const char **problem) {
    FILE *file = fopen(path, "rb");
    unsigned char *bytes = NULL;
    size_t room = 0;
    *size = 0;
    *problem = file ? NULL : "it cannot be opened";
    while (!*problem && !feof(file)) {
        if (*size == room) {
            unsigned char *grown = (unsigned char *)realloc(bytes, room = room ? 2 * room : 1 << 16);
            if (grown) bytes = grown;
            if (!grown || room > WAV_MOST_BYTES) {
                *problem = grown ? "it is larger than 1 GB" : "there is not enough memory";
                break;
            }
        }
        *size += fread(bytes + *size, 1, room - *size, file);
        if (ferror(file)) *problem = "it cannot be read";
    }
    if (file) fclose(file);
    if (*problem) {
        free(bytes);
        bytes = NULL;
    }
    return bytes;
}

static float wav_sample(const unsigned char *at, int bytes, int is_float) {
    uint32_t bits = wav_number(at, bytes);
    float value;
    if (!is_float) return (float)((double)(int32_t)(bits << (32 - 8 * bytes)) / 2147483648.0); /* as the top of 32 bits */
    memcpy(&value, &bits, sizeof value);
    return value;
}

static const char *wav_decode(const unsigned char *bytes, size_t size, wav *sound) {
    static const unsigned char rest_of_guid[14] = {0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71};
    size_t at = 12, begin = 0, length = 0, frame;
    uint32_t format = 0, width = 0;
    if (size < 12 || memcmp(bytes, "RIFF", 4) || memcmp(bytes + 8, "WAVE", 4)) return "it is no WAV file";
    while (!begin && size - at >= 8) {
        const unsigned char *chunk = bytes + at;
        size_t rest = size - at - 8, claimed = wav_number(chunk + 4, 4);
        if (!memcmp(chunk, "data", 4)) {
            if (claimed == 0xFFFFFFFF) claimed = rest;
            if (claimed > rest) return "it ends within its samples: it is truncated";
            begin = at + 8;
            length = claimed;
        } else if (claimed > rest) {
            return "it ends within a chunk before its samples: it is truncated";
        } else if (!memcmp(chunk, "fmt ", 4)) {
            if (claimed < 16) return "its format is shorter than 16 bytes";
            format = wav_number(chunk + 8, 2);
            sound->channels = (int)wav_number(chunk + 10, 2);
            sound->rate = (int)(wav_number(chunk + 12, 4) & 0x7FFFFFFF);
            width = wav_number(chunk + 22, 2) / 8;
            if (wav_number(chunk + 20, 2) != width * (uint32_t)sound->channels || wav_number(chunk + 22, 2) % 8)
                return "its format contradicts itself";
            if (format == 0xFFFE) { /* extensible: the format is the beginning of an identifier */
                if (claimed < 40 || memcmp(chunk + 34, rest_of_guid, 14)) return "its extensible format is of no known kind";
                format = wav_number(chunk + 32, 2);
            }
        }
        at += 8 + claimed + (claimed & 1 && claimed < rest); /* chunks begin at even places */
    }
    if (!begin) return "it has no samples in it";
    if (!format) return "it does not say its format before its samples";
    if (!(format == 1 && width >= 2 && width <= 4) && !(format == 3 && width == 4))
        return "it holds neither PCM of 16, 24 or 32 bits nor float of 32";
    if (!sound->channels) return "it has no channels";
    frame = width * (size_t)sound->channels;
    sound->frames = length / frame;
    sound->samples = (float *)malloc((sound->frames * (size_t)sound->channels + 1) * sizeof(float)); /* none is not NULL either */
    if (!sound->samples) return "there is not enough memory";
    for (size_t i = 0; i < sound->frames * (size_t)sound->channels; i++)
        sound->samples[i] = wav_sample(bytes + begin + i * width, (int)width, format == 3);
    return NULL;
}

/* NULL, and the sound in the file; or what is wrong with it, and nothing to free. */
static const char *wav_read(const char *path, wav *sound) {
    const char *problem;
    size_t size;
    unsigned char *bytes = wav_contents(path, &size, &problem);
    memset(sound, 0, sizeof *sound);
    if (!problem) problem = wav_decode(bytes, size, sound);
    free(bytes);
    return problem;
}

#endif
