/* stapes-check MODEL WAV...: whether this host computes what the exporter's did. The model's golden test first, then each WAV against the
   scores in the file beside it, clip.wav.tsv, one line a label: its place in the model, its score, the label itself. */
#define STAPES_IMPLEMENTATION
#include "stapes.h"
#include "wav.h"

/* The expected score of each label into `scores`; 0 where a line is missing or wrong. */
static int read_expected(const char *wav_path, double *scores, size_t labels) {
    char path[4096], line[8192], *end;
    size_t count = 0;
    FILE *file;
    if (snprintf(path, sizeof path, "%s.tsv", wav_path) >= (int)sizeof path || !(file = fopen(path, "r"))) return 0;
    for (size_t i = 0; i < labels; i++) scores[i] = -1e300;
    while (fgets(line, sizeof line, file)) {
        unsigned long index = strtoul(line, &end, 10);
        if (*end != '\t' || index >= labels || scores[index] != -1e300) break;
        scores[index] = strtod(end, &end);
        if (*end != '\t' || !strchr(line, '\n')) break;
        count++;
    }
    fclose(file);
    return count == labels;
}

static size_t best_of(const double *scores, size_t labels) {
    size_t best = 0;
    for (size_t i = 1; i < labels; i++)
        if (scores[i] > scores[best]) best = i;
    return best;
}

/* A score moves by no more than its logits do. The top label may change where two scores are as near as that. */
static int check(const stapes_model *model, const char *path) {
    size_t labels = stapes_label_count(model), found = 0;
    double *expected = (double *)calloc(labels, sizeof *expected), tolerance = stapes_tolerance(model), largest = 0;
    stapes_prediction *top = (stapes_prediction *)calloc(labels, sizeof *top);
    stapes_error error = {STAPES_OK, "there is not enough memory"};
    wav file = {NULL, 0, 0, 0};
    const char *problem = expected && top ? wav_read(path, &file) : error.text;
    int passed = 0;
    if (!problem && !read_expected(path, expected, labels)) problem = "the file of its expected scores is missing or is another model's";
    if (!problem) {
        stapes_sound sound = {file.samples, STAPES_FLOAT, file.frames, file.channels, file.rate};
        if (stapes_classify(model, &sound, top, labels, &found, &error)) problem = error.text;
    }
    for (size_t i = 0; i < found; i++) largest = fmax(largest, fabs((double)top[i].score - expected[top[i].index]));
    if (problem) {
        printf("FAILED  %s: %s\n", path, problem);
    } else {
        double margin = expected[best_of(expected, labels)] - expected[top[0].index];
        passed = largest <= tolerance && margin <= 2 * tolerance;
        printf("%s  %s: scores within %.2g of the exporter's (tolerance %.2g)\n", passed ? "ok    " : "FAILED", path, largest, tolerance);
    }
    free(file.samples);
    free(top);
    free(expected);
    return passed;
}

int main(int argc, char **argv) {
    stapes_model *model;
    stapes_error error;
    double difference = 0;
    int failed = 0;
    if (argc < 2) {
        fprintf(stderr, "usage: stapes-check MODEL WAV...\n");
        return 2;
    }
    if (stapes_load(argv[1], NULL, &model, &error)) {
        fprintf(stderr, "stapes-check: %s\n", error.text);
        return 2;
    }
    if (stapes_verify(model, &difference, &error)) {
        printf("FAILED  golden test: %s\n", error.text);
        failed++;
    } else {
        printf("ok      golden test: logits within %.2g of the exporter's (tolerance %.2g)\n", difference, stapes_tolerance(model));
    }
    for (int i = 2; i < argc; i++) failed += !check(model, argv[i]);
    stapes_free(model);
    return failed ? 1 : 0;
}
