/* stapes-classify MODEL WAV [K]: prints the K labels (default: 5) that score highest, one a line, as label<TAB>score. */
#define STAPES_IMPLEMENTATION
#include "stapes.h"
#include "wav.h"

/* A label is its model's: what would break the line or steer a terminal is shown as ?. */
static void print_label(const char *label) {
    for (const unsigned char *at = (const unsigned char *)label; *at; at++) {
        int c1 = *at == 0xC2 && at[1] >= 0x80 && at[1] < 0xA0;
        putchar(*at < 0x20 || *at == 0x7F || c1 ? '?' : *at);
        at += c1;
    }
}

/* 0: done, 1: the sound cannot be classified. */
static int classify(const stapes_model *model, const char *path, size_t k) {
    size_t room = k < stapes_label_count(model) ? k : stapes_label_count(model), found;
    stapes_prediction *top = (stapes_prediction *)malloc(room * sizeof *top);
    stapes_error error;
    wav file;
    const char *problem = top ? wav_read(path, &file) : "there is not enough memory";
    int status = 1;
    if (problem) {
        fprintf(stderr, "stapes-classify: cannot use %s: %s\n", path, problem);
    } else {
        stapes_sound sound = {file.samples, STAPES_FLOAT, file.frames, file.channels, file.rate};
        if (stapes_classify(model, &sound, top, room, &found, &error)) {
            fprintf(stderr, "stapes-classify: %s: %s\n", path, error.text);
        } else {
            for (size_t i = 0; i < found; i++) {
                print_label(top[i].label);
                printf("\t%.6f\n", top[i].score);
            }
            status = 0;
        }
        free(file.samples);
    }
    free(top);
    return status;
}

int main(int argc, char **argv) {
    stapes_model *model;
    stapes_error error;
    char *end = NULL;
    unsigned long k = argc == 4 ? strtoul(argv[3], &end, 10) : 5;
    int status;
    if (argc < 3 || argc > 4 || (end && (*end || argv[3][0] < '1' || argv[3][0] > '9'))) {
        fprintf(stderr, "usage: stapes-classify MODEL WAV [K], where K is how many labels to print, from 1 up\n");
        return 2;
    }
    if (stapes_load(argv[1], NULL, &model, &error)) {
        fprintf(stderr, "stapes-classify: %s\n", error.text);
        return 2;
    }
    status = classify(model, argv[2], k);
    stapes_free(model);
    return status;
}
