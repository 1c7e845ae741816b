/* probe COMMAND MODEL ...: calls of stapes.h that no example makes; see test_c.py, which reads what it prints. */
#define STAPES_IMPLEMENTATION
#include "stapes.h"
#include "wav.h"

#include <pthread.h>

#define MOST_LABELS 64

static int complain(const char *what, const stapes_error *error) {
    printf("%s\t%d\t%s\n", what, (int)error->code, error->text);
    return 1;
}

static unsigned char *contents(const char *path, size_t *size) {
    const char *problem;
    return wav_contents(path, size, &problem);
}

static wav must_read(const char *path) {
    wav sound;
    const char *problem = wav_read(path, &sound);
    if (problem) {
        printf("%s: %s\n", path, problem);
        exit(1);
    }
    return sound;
}

/* scores MODEL WAV float|int16 path|memory CHANNELS OFFSET: every label and score; OFFSET bytes before the samples make them unaligned. */
static int scores(char **given) {
    wav file = must_read(given[1]);
    int int16 = !strcmp(given[2], "int16"), channels = atoi(given[4]), offset = atoi(given[5]);
    size_t wide = int16 ? 2 : 4, size = 0, found;
    char *memory = (char *)malloc(file.frames * (size_t)channels * wide + (size_t)offset);
    unsigned char *bytes = strcmp(given[3], "memory") ? NULL : contents(given[0], &size);
    stapes_prediction top[MOST_LABELS];
    stapes_model *model;
    stapes_error error;
    if (bytes ? stapes_load_memory(bytes, size, NULL, &model, &error) : stapes_load(given[0], NULL, &model, &error))
        return complain("load", &error);
    if (bytes) memset(bytes, 0, size); /* it may be freed after the call */
    for (size_t i = 0; i < file.frames; i++) {
        for (int c = 0; c < channels; c++) {
            float apart = channels == 2 ? (c ? -327.0f : 327.0f) / 32768.0f : 0; /* channels that differ, and whose mean is the sound */
            float value = file.samples[i] + apart;
            int16_t rounded = (int16_t)lrintf(value * 32768.0f);
            memcpy(memory + offset + (i * (size_t)channels + (size_t)c) * wide, int16 ? (void *)&rounded : (void *)&value, wide);
        }
    }
    stapes_sound sound = {memory + offset, int16 ? STAPES_INT16 : STAPES_FLOAT, file.frames, channels, file.rate};
    if (stapes_classify(model, &sound, top, MOST_LABELS, &found, &error)) return complain("classify", &error);
    for (size_t i = 0; i < found; i++) printf("%s\t%.9g\n", top[i].label, top[i].score);
    stapes_free(model);
    free(bytes);
    free(memory);
    free(file.samples);
    return 0;
}

/* threads MODEL COUNT ROUNDS WAV...: COUNT threads on one handle, each classifying all clips again and again. */
typedef struct task {
    const stapes_model *model;
    const wav *clips;
    int count, rounds, wrong;
    const stapes_prediction (*expected)[MOST_LABELS];
} task;

static int same(const stapes_model *model, const wav *clip, const stapes_prediction *expected) {
    stapes_sound sound = {clip->samples, STAPES_FLOAT, clip->frames, clip->channels, clip->rate};
    stapes_prediction top[MOST_LABELS];
    size_t found;
    if (stapes_classify(model, &sound, top, MOST_LABELS, &found, NULL)) return 0;
    for (size_t i = 0; i < found; i++)
        if (top[i].index != expected[i].index || top[i].score != expected[i].score) return 0;
    return 1;
}

static void *work(void *argument) {
    task *own = (task *)argument;
    for (int i = 0; i < own->rounds * own->count; i++)
        own->wrong += !same(own->model, &own->clips[i % own->count], own->expected[i % own->count]);
    return NULL;
}

static int threads(int count, char **given) {
    enum { MOST = 16 };
    static stapes_prediction expected[MOST][MOST_LABELS];
    wav clips[MOST];
    pthread_t running[MOST];
    task tasks[MOST];
    stapes_options one = {1, 0};
    stapes_model *model;
    stapes_error error;
    int number = atoi(given[1]), rounds = atoi(given[2]), wrong = 0;
    if (stapes_load(given[0], &one, &model, &error)) return complain("load", &error);
    for (int i = 0; i < count - 3; i++) {
        size_t found;
        clips[i] = must_read(given[3 + i]);
        stapes_sound sound = {clips[i].samples, STAPES_FLOAT, clips[i].frames, clips[i].channels, clips[i].rate};
        if (stapes_classify(model, &sound, expected[i], MOST_LABELS, &found, &error)) return complain("classify", &error);
    }
    for (int i = 0; i < number; i++) {
        task own = {model, clips, count - 3, rounds, 0, (const stapes_prediction(*)[MOST_LABELS])expected};
        tasks[i] = own;
        if (pthread_create(&running[i], NULL, work, &tasks[i])) return 1;
    }
    for (int i = 0; i < number; i++) {
        pthread_join(running[i], NULL);
        wrong += tasks[i].wrong;
    }
    printf("%d answers, %d wrong\n", number * rounds * (count - 3), wrong);
    for (int i = 0; i < count - 3; i++) free(clips[i].samples);
    stapes_free(model);
    return wrong != 0;
}

/* arguments MODEL: calls with something wrong in them, each on a line as what, code, text. What a failed call gives back is nothing. */
static void told(const char *what, stapes_code code, int nothing, const stapes_error *error) {
    if (code != error->code || (code && !nothing)) printf("%s: an answer beside the error\n", what);
    complain(what, error);
}

static void tell(const char *what, const stapes_model *model, const stapes_sound *sound, size_t room) {
    stapes_prediction top[MOST_LABELS];
    stapes_error error = {(stapes_code)99, "?"};
    size_t found = 99;
    stapes_code code = stapes_classify(model, sound, top, room, &found, &error);
    told(what, code, !found, &error);
}

static int arguments(char **given) {
    enum { ROOM = 20000 };
    static float samples[ROOM];
    const char *path = given[0];
    stapes_options wrong_threads = {-1, 0}, many_threads = {100000, 0}, wrong_level = {0, 5};
    stapes_model *model, *none = NULL;
    stapes_prediction top[MOST_LABELS];
    stapes_error error;
    size_t found = 0, size;
    unsigned char *bytes = contents(path, &size);
    if (stapes_load(path, NULL, &model, &error)) return complain("load", &error);
    stapes_sound good = {samples, STAPES_FLOAT, ROOM, 1, stapes_rate(model)}, bad;
    size_t least = stapes_min_samples(model);

    tell("good", model, &good, 1);
    tell("huge room", model, &good, (size_t)-1);
    tell("no room", model, &good, 0);
    tell("no model", NULL, &good, 1);
    tell("no sound", model, NULL, 1);
    told("no top", stapes_classify(model, &good, NULL, 1, &found, &error), !found, &error);
    told("no found", stapes_classify(model, &good, top, 1, NULL, &error), 1, &error);
    if (stapes_classify(model, &good, top, 0, &found, NULL) != STAPES_BAD_ARGUMENT) puts("no error: another code");

    bad = good, bad.samples = NULL, tell("no samples", model, &bad, 1);
    bad = good, bad.channels = 0, tell("no channels", model, &bad, 1);
    bad = good, bad.channels = -1, tell("negative channels", model, &bad, 1);
    bad = good, bad.channels = 9, tell("nine channels", model, &bad, 1);
    bad = good, bad.format = (stapes_format)7, tell("no format", model, &bad, 1);
    bad = good, bad.rate = 8000, tell("wrong rate", model, &bad, 1);
    bad = good, bad.rate = 0, tell("no rate", model, &bad, 1);
    bad = good, bad.frames = 0, tell("zero samples", model, &bad, 1);
    bad = good, bad.frames = 0, bad.samples = NULL, tell("nothing at all", model, &bad, 1);
    bad = good, bad.frames = least - 1, tell("too short", model, &bad, 1);
    bad = good, bad.frames = least, tell("just long enough", model, &bad, 1);
    bad = good, bad.frames = (size_t)1 << 31, tell("2^31 samples", model, &bad, 1);
    bad = good, bad.frames = (size_t)-1, bad.channels = 8, tell("all of memory", model, &bad, 1);
    samples[5] = NAN, tell("NaN", model, &good, 1);
    samples[5] = -INFINITY, tell("infinity", model, &good, 1);
    samples[4] = INFINITY, bad = good, bad.channels = 2, bad.frames = ROOM / 2, tell("infinities of both signs", model, &bad, 1);

    told("load no path", stapes_load(NULL, NULL, &none, &error), !none, &error);
    told("load to nowhere", stapes_load(path, NULL, NULL, &error), 1, &error);
    told("load negative threads", stapes_load(path, &wrong_threads, &none, &error), !none, &error);
    told("load many threads", stapes_load(path, &many_threads, &none, &error), !none, &error);
    told("load wrong level", stapes_load(path, &wrong_level, &none, &error), !none, &error);
    told("load no bytes", stapes_load_memory(NULL, 100, NULL, &none, &error), !none, &error);
    told("load zero bytes", stapes_load_memory(bytes, 0, NULL, &none, &error), !none, &error);
    told("verify nothing", stapes_verify(NULL, NULL, &error), 1, &error);
    stapes_free(NULL);
    stapes_free(model);
    free(bytes);
    return 0;
}

/* verify MODEL: difference, tolerance, code, text. */
static int verify(char **given) {
    double difference = -1;
    stapes_model *model;
    stapes_error error;
    if (stapes_load(given[0], NULL, &model, &error)) return complain("load", &error);
    stapes_verify(model, &difference, &error);
    printf("%.9g\t%.9g\t%d\t%s\n", difference, stapes_tolerance(model), (int)error.code, error.text);
    stapes_free(model);
    return 0;
}

/* about MODEL: what the model says of itself, a line each. */
static int about(char **given) {
    stapes_model *model;
    stapes_error error;
    if (stapes_load(given[0], NULL, &model, &error)) return complain("load", &error);
    printf("%s\n%d\n%zu\n%g\n", stapes_name(model), stapes_rate(model), stapes_min_samples(model), stapes_tolerance(model));
    for (size_t i = 0; stapes_need(model, i); i++) printf("needs %s\n", stapes_need(model, i));
    for (size_t i = 0; stapes_label(model, i); i++) printf("%s\n", stapes_label(model, i));
    stapes_free(model);
    return 0;
}

/* load MODEL...: each from its path and from memory, run if it loads; path, code, text, a line for each way. */
static int load(int count, char **given) {
    static float samples[16000];
    for (int i = 0; i < count; i++) {
        for (int memory = 0; memory < 2; memory++) {
            size_t size = 0, found;
            unsigned char *bytes = memory ? contents(given[i], &size) : NULL;
            unsigned char nothing = 0;
            stapes_prediction top[MOST_LABELS];
            stapes_model *model = NULL;
            stapes_error error;
            if (memory ? stapes_load_memory(bytes ? bytes : &nothing, size, NULL, &model, &error)
                       : stapes_load(given[i], NULL, &model, &error)) {
                if (model) puts("a model beside the error");
            } else {
                stapes_sound sound = {samples, STAPES_FLOAT, 16000, 1, stapes_rate(model)};
                if (!stapes_classify(model, &sound, top, MOST_LABELS, &found, &error)) stapes_verify(model, NULL, &error);
            }
            complain(given[i], &error);
            stapes_free(model);
            free(bytes);
        }
    }
    return 0;
}

/* wav FILE...: frames, channels and rate, or what is wrong. */
static int wavs(int count, char **given) {
    for (int i = 0; i < count; i++) {
        wav sound;
        const char *problem = wav_read(given[i], &sound);
        float sum = 0;
        if (!problem)
            for (size_t j = 0; j < sound.frames * (size_t)sound.channels; j++) sum += sound.samples[j];
        if (problem)
            printf("%s\t%s\n", given[i], problem);
        else
            printf("%s\t%zu %d %d %s\n", given[i], sound.frames, sound.channels, sound.rate, isfinite(sum) ? "finite" : "not finite");
        free(sound.samples);
    }
    return 0;
}

int main(int argc, char **argv) {
    const char *command = argc > 2 ? argv[1] : "";
    char **given = argv + 2;
    if (!strcmp(command, "scores") && argc == 8) return scores(given);
    if (!strcmp(command, "threads")) return threads(argc - 2, given);
    if (!strcmp(command, "arguments")) return arguments(given);
    if (!strcmp(command, "verify")) return verify(given);
    if (!strcmp(command, "about")) return about(given);
    if (!strcmp(command, "load")) return load(argc - 2, given);
    if (!strcmp(command, "wav")) return wavs(argc - 2, given);
    return 64;
}
