/* stapes.h: audio classification in a C or C++ program, by a model of `stapes export` and ONNX Runtime. Nothing else is needed.

    #define STAPES_IMPLEMENTATION        in one file of the program; the others include stapes.h alone
    #include "stapes.h"

    stapes_error error;
    stapes_model *model;
    if (stapes_load("speech-commands.onnx", NULL, &model, &error)) return puts(error.text), 1;

    stapes_sound sound = {pcm, STAPES_INT16, frames, channels, rate};       the caller's memory, only read
    stapes_prediction top[5];
    size_t found;
    if (stapes_classify(model, &sound, top, 5, &found, &error)) puts(error.text);
    else for (size_t i = 0; i < found; i++) printf("%s\t%.6f\n", top[i].label, top[i].score);

    stapes_free(model);

Build: any C11 or C++11 compiler, ONNX Runtime 1.14 or later, the math library.

    cc -Iort/include program.c ort/lib/libonnxruntime.so -lm

Where the SDK's onnxruntime_c_api.h is on the include path it is used, otherwise stapes_ort.h, which lies beside this file.

The rules, all of them:

- What can fail gives a stapes_code, STAPES_OK (0) or what went wrong, and one sentence in `error`, which may be NULL.
- A sound is float or int16 samples, channels interleaved (left, right, left, ...), which are averaged. Its rate has to be the model's,
  stapes_rate(model): nothing is resampled here. `stapes export --input-rate` makes a model for another rate.
- One call takes up to STAPES_MOST_FRAMES; longer sound is classified in windows, as many calls.
- There is no global state. After stapes_load the model is never written to: any number of threads may use one handle at once, without a
  lock, until one of them frees it.
- Labels and names live as long as the model, and are UTF-8 of the model's maker: do not send them to a terminal as they are.
- stapes_verify computes what the exporter computed, on this CPU and this ONNX Runtime. Call it once where a model is installed.
- A model file is checked before it is believed, but an ONNX Runtime before 1.24 reads weights wherever a model's file says that they are:
  take a newer one where models are strangers'. */
#ifndef STAPES_H
#define STAPES_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum stapes_code {
    STAPES_OK = 0,
    STAPES_BAD_ARGUMENT, /* NULL, no channels, room for no predictions, ... */
    STAPES_NO_MEMORY,
    STAPES_OLD_RUNTIME,  /* ONNX Runtime before 1.14 */
    STAPES_NO_FILE,      /* no model at that path */
    STAPES_BAD_MODEL,    /* ONNX Runtime cannot load or run it, its weights are not beside it, or it contradicts itself */
    STAPES_NO_MANIFEST,  /* an ONNX file, made by others */
    STAPES_NEWER_SCHEMA, /* made by a newer stapes than this file */
    STAPES_WRONG_RATE,
    STAPES_TOO_SHORT,
    STAPES_TOO_LONG,
    STAPES_NOT_FINITE,   /* NaN or an infinite sample */
    STAPES_GOLDEN_FAILED /* this host computes other numbers than the exporter did */
} stapes_code;

typedef struct stapes_error {
    stapes_code code;
    char text[512]; /* one line of UTF-8 */
} stapes_error;

typedef struct stapes_model stapes_model;

typedef struct stapes_options { /* all zeros: the defaults */
    int threads;                /* within one call; 0 leaves it to ONNX Runtime, one a physical core */
    int log_level;              /* what ONNX Runtime itself says on stderr: 0 nothing, 1 errors, 2 warnings, 3 information, 4 everything */
} stapes_options;

typedef enum stapes_format { STAPES_FLOAT = 0, STAPES_INT16 = 1 } stapes_format; /* full scale is 1.0, or 32768 */

typedef struct stapes_sound {
    const void *samples; /* frames x channels of them, of any alignment */
    stapes_format format;
    size_t frames;
    int channels;
    int rate; /* frames a second */
} stapes_sound;

typedef struct stapes_prediction {
    const char *label;
    float score;
    size_t index; /* the label's place in the model */
} stapes_prediction;

#define STAPES_MOST_FRAMES ((size_t)1 << 26) /* of one call: 70 minutes at 16 kHz */

/* The model in a file, or in memory, which may be freed after the call. `options` may be NULL. A model with weights in a file beside it
   is loaded from its path. */
stapes_code stapes_load(const char *path, const stapes_options *options, stapes_model **model, stapes_error *error);
stapes_code stapes_load_memory(const void *bytes, size_t size, const stapes_options *options, stapes_model **model, stapes_error *error);
void stapes_free(stapes_model *model); /* NULL is fine */

const char *stapes_name(const stapes_model *model);
int stapes_rate(const stapes_model *model);           /* Hz */
size_t stapes_min_samples(const stapes_model *model); /* frames of the shortest sound */
size_t stapes_label_count(const stapes_model *model);
const char *stapes_label(const stapes_model *model, size_t index); /* NULL where there is none */
const char *stapes_need(const stapes_model *model,
                        size_t index);              /* a CPU ability, any one of which the model needs; NULL behind the last */
double stapes_tolerance(const stapes_model *model); /* of a logit in the golden test; 0 where the model has none */

/* The `room` labels that score highest into `top`, best first, and into `found` how many they are: as many as there are labels at most. */
stapes_code stapes_classify(const stapes_model *model, const stapes_sound *sound, stapes_prediction *top, size_t room, size_t *found,
                            stapes_error *error);

/* The golden test: a signal made by a formula, and the logits that the exporter computed for it. `difference`, which may be NULL, is the
   largest of a logit; beyond stapes_tolerance(model) the answer is STAPES_GOLDEN_FAILED. */
stapes_code stapes_verify(const stapes_model *model, double *difference, stapes_error *error);

#ifdef __cplusplus
}
#endif
#endif /* STAPES_H */

#ifdef STAPES_IMPLEMENTATION
#undef STAPES_IMPLEMENTATION

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#ifdef _WIN32
#include <wchar.h>
#include <windows.h>
#ifndef S_ISREG
#define S_ISREG(mode) (((mode) & _S_IFMT) == _S_IFREG)
#endif
#endif

#ifndef ORT_API_VERSION /* the program has not included it under another path */
#if defined(__has_include)
#if __has_include(<onnxruntime_c_api.h>)
#include <onnxruntime_c_api.h>
#endif
#endif
#endif
#ifndef ORT_API_VERSION
#include "stapes_ort.h"
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define STAPES__ORT_VERSION 14    /* the oldest that has every function used here */
#define STAPES__SCHEMA 1          /* the newest manifest that this file reads */
#define STAPES__MOST_ITEMS 100000 /* labels; AudioSet has 527 */
#define STAPES__DEEPEST 64        /* of objects and lists in one another; a manifest has 5 */
#define STAPES__GOLDEN_S 60.0     /* the longest golden signal */
#define STAPES__MOST_CHANNELS 8   /* 7.1; more are microphones, and their average is no one's sound */

struct stapes_model {
    const OrtApi *ort;
    OrtEnv *env;
    OrtSession *session;
    OrtMemoryInfo *memory;
    char *text; /* every string of the manifest, one behind the other */
    const char *name;
    const char **labels;
    size_t label_count;
    const char **needs;
    size_t need_count;
    int rate;
    size_t min_samples;
    double golden_seconds;
    double *golden; /* the logits; NULL where the model has no golden test */
    double tolerance;
};

/* Errors */

/* The bytes of the UTF-8 character there, 0 where there is none: no longer forms, no surrogates, nothing above U+10FFFF. */
static size_t stapes__utf8(const char *text) {
    const unsigned char *at = (const unsigned char *)text;
    size_t size = at[0] < 0x80                    ? 1
                  : at[0] >= 0xC2 && at[0] < 0xE0 ? 2
                  : at[0] >= 0xE0 && at[0] < 0xF0 ? 3
                  : at[0] >= 0xF0 && at[0] < 0xF5 ? 4
                                                  : 0;
    for (size_t i = 1; i < size; i++)
        if ((at[i] & 0xC0) != 0x80) return 0;
    if ((at[0] == 0xE0 && at[1] < 0xA0) || (at[0] == 0xED && at[1] > 0x9F)) return 0;
    if ((at[0] == 0xF0 && at[1] < 0x90) || (at[0] == 0xF4 && at[1] > 0x8F)) return 0;
    return size;
}

/* File names and models are strangers': what is no UTF-8, would break the line or steers a terminal becomes ?. */
static void stapes__clean(char *text) {
    for (size_t size; *text; text += size ? size : 1) {
        size = stapes__utf8(text);
        int c1 = size == 2 && (unsigned char)text[0] == 0xC2 && (unsigned char)text[1] < 0xA0;
        if (!size || (unsigned char)*text < 0x20 || *text == 0x7F) *text = '?';
        if (c1) text[0] = text[1] = '?';
    }
}

#ifdef __GNUC__
__attribute__((format(printf, 3, 4)))
#endif
static stapes_code stapes__fail(stapes_error *error, stapes_code code, const char *format, ...) {
    if (error) {
        va_list values;
        va_start(values, format);
        vsnprintf(error->text, sizeof error->text, format, values);
        va_end(values);
        stapes__clean(error->text);
        error->code = code;
    }
    return code;
}

static stapes_code stapes__ok(stapes_error *error) {
    if (error) {
        error->code = STAPES_OK;
        error->text[0] = 0;
    }
    return STAPES_OK;
}

static stapes_code stapes__no_memory(stapes_error *error) { return stapes__fail(error, STAPES_NO_MEMORY, "there is not enough memory"); }

/* JSON: strict, bounded in depth, never behind the text's end, which is a 0 */

typedef struct stapes__json {
    const char *at;
    char *text; /* where the next string goes; each is shorter than in JSON, so that they fit where all of it would */
    int depth;
    const char *problem; /* the first one; nothing is read behind it */
} stapes__json;

static void stapes__problem(stapes__json *json, const char *problem) {
    if (!json->problem) json->problem = problem;
}

static void stapes__space(stapes__json *json) {
    while (*json->at == ' ' || *json->at == '\t' || *json->at == '\n' || *json->at == '\r') json->at++;
}

/* Whether the next character is this one, which is then passed. */
static int stapes__next_is(stapes__json *json, char character) {
    if (json->problem) return 0;
    stapes__space(json);
    if (*json->at != character) return 0;
    json->at++;
    return 1;
}

static int stapes__word(stapes__json *json, const char *word) {
    if (json->problem) return 0;
    stapes__space(json);
    if (strncmp(json->at, word, strlen(word))) return 0;
    json->at += strlen(word);
    return 1;
}

static long stapes__hex4(const char *text) {
    long value = 0;
    for (int i = 0; i < 4; i++) {
        char c = text[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* What an escape stands for, the reader behind its backslash: a letter, or \uXXXX, of which two make a character above U+FFFF. */
static void stapes__escape(stapes__json *json) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *name = *json->at ? strchr(names, *json->at) : NULL;
    long code = *json->at == 'u' ? stapes__hex4(json->at + 1) : -1;
    int more; /* bytes behind the first */
    if (name) {
        *json->text++ = values[name - names];
        json->at++;
        return;
    }
    if (code >= 0) json->at += 5;
    if (code >= 0xD800 && code < 0xDC00 && json->at[0] == '\\' && json->at[1] == 'u') {
        long low = stapes__hex4(json->at + 2);
        if (low >= 0xDC00 && low < 0xE000) {
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            json->at += 6;
        }
    }
    if (code <= 0 || (code >= 0xD800 && code < 0xE000)) { /* a 0 would end the string for C */
        stapes__problem(json, "an escape that is no character");
        return;
    }
    more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    *json->text++ = (char)((more == 0 ? 0 : more == 1 ? 0xC0 : more == 2 ? 0xE0 : 0xF0) | (code >> (6 * more)));
    while (more--) *json->text++ = (char)(0x80 | ((code >> (6 * more)) & 0x3F));
}

/* The next value as a string, or NULL with a problem. */
static const char *stapes__string(stapes__json *json) {
    const char *begin = json->text;
    if (!stapes__next_is(json, '"')) stapes__problem(json, "no string where one is expected");
    if (json->problem) return NULL;
    while (*json->at != '"') {
        size_t size = stapes__utf8(json->at);
        if (!size || (unsigned char)*json->at < 0x20) stapes__problem(json, "a string without an end, or not in UTF-8");
        if (json->problem) return NULL;
        if (*json->at == '\\') {
            json->at++;
            stapes__escape(json);
            if (json->problem) return NULL;
        } else {
            memcpy(json->text, json->at, size);
            json->text += size;
            json->at += size;
        }
    }
    json->at++;
    *json->text++ = 0;
    return begin;
}

/* The next value as a number. Not by strtod, which reads a comma where the program's locale has one. */
static double stapes__number(stapes__json *json) {
    double value = 0, scale = 1;
    int digits = 0, exponent = 0, minus;
    if (json->problem) return 0;
    stapes__space(json);
    minus = *json->at == '-';
    if (minus) json->at++;
    if (*json->at == '0' && json->at[1] >= '0' && json->at[1] <= '9') stapes__problem(json, "a number that begins with 0");
    for (; *json->at >= '0' && *json->at <= '9'; json->at++, digits++) value = value * 10 + (*json->at - '0');
    if (!digits) stapes__problem(json, "no number where one is expected");
    if (*json->at == '.') {
        json->at++;
        for (digits = 0; *json->at >= '0' && *json->at <= '9'; json->at++, digits++) {
            if (digits > 30) continue; /* beyond what a double holds, and far from where value * 10 is no number */
            value = value * 10 + (*json->at - '0');
            exponent--;
        }
        if (!digits) stapes__problem(json, "a number that ends with its point");
    }
    if (*json->at == 'e' || *json->at == 'E') {
        int sign = json->at[1] == '-' ? -1 : 1, power = 0;
        json->at += json->at[1] == '-' || json->at[1] == '+' ? 2 : 1;
        for (digits = 0; *json->at >= '0' && *json->at <= '9'; json->at++, digits++)
            if (power < 1000) power = power * 10 + (*json->at - '0');
        if (!digits) stapes__problem(json, "a number without its exponent");
        exponent += sign * power;
    }
    for (int i = exponent < 0 ? -exponent : exponent; i > 0 && scale < 1e300; i--) scale *= 10;
    value = exponent < 0 ? value / scale : value * scale;
    if (!(value <= 1e300)) stapes__problem(json, "a number too large");
    return minus ? -value : value;
}

/* The next value as a whole number from `least` to `most`, at most 2^53. */
static size_t stapes__whole(stapes__json *json, double least, double most) {
    double value = stapes__number(json);
    if (json->problem) return 0;
    if (value >= least && value <= most && value == floor(value)) return (size_t)value;
    stapes__problem(json, "a number out of its bounds");
    return 0;
}

/* Goes into a list or an object: then stapes__more tells whether another item is there. */
static void stapes__enter(stapes__json *json, char bracket) {
    if (!stapes__next_is(json, bracket))
        stapes__problem(json, bracket == '[' ? "no list where one is expected" : "no object where one is expected");
    if (++json->depth > STAPES__DEEPEST) stapes__problem(json, "lists or objects nested too deeply");
}

static int stapes__more(stapes__json *json, size_t seen, char bracket) {
    if (stapes__next_is(json, bracket)) {
        json->depth--;
        return 0;
    }
    if (seen && !stapes__next_is(json, ',')) stapes__problem(json, "no comma where one is expected");
    return !json->problem;
}

/* The key of the next item of an object, "" with a problem. It is gone when the next string is read. */
static const char *stapes__key(stapes__json *json) {
    char *before = json->text;
    const char *key = stapes__string(json);
    json->text = before;
    if (key && !stapes__next_is(json, ':')) stapes__problem(json, "no colon behind a key");
    return json->problem ? "" : key;
}

static void stapes__skip(stapes__json *json) {
    char *before = json->text, first;
    size_t seen = 0;
    stapes__space(json);
    first = json->problem ? 0 : *json->at;
    if (first == '"') {
        stapes__string(json);
    } else if (first == '{') {
        for (stapes__enter(json, '{'); stapes__more(json, seen++, '}'); stapes__skip(json)) stapes__key(json);
    } else if (first == '[') {
        for (stapes__enter(json, '['); stapes__more(json, seen++, ']');) stapes__skip(json);
    } else if (!stapes__word(json, "true") && !stapes__word(json, "false") && !stapes__word(json, "null")) {
        stapes__number(json);
    }
    json->text = before;
}

/* The manifest: what of it a host needs */

/* Room for one more item of `size` bytes in a list of `count`, which doubles; NULL where there is no memory, the list as it was. */
static void *stapes__grown(void *items, size_t count, size_t size) {
    if (count & (count - 1)) return items; /* between powers of two there is room */
    return realloc(items, (count ? 2 * count : 1) * size);
}

/* The next value as a list of strings. 0 where there is no memory. */
static int stapes__strings(stapes__json *json, const char ***items, size_t *count) {
    for (stapes__enter(json, '['); stapes__more(json, *count, ']'); (*count)++) {
        void *grown = stapes__grown((void *)*items, *count, sizeof **items);
        if (!grown) return 0;
        *items = (const char **)grown;
        (*items)[*count] = stapes__string(json);
        if (*count == STAPES__MOST_ITEMS) stapes__problem(json, "a list that is too long");
    }
    return 1;
}

static int stapes__golden(stapes__json *json, stapes_model *model) {
    size_t seen = 0, logits = 0;
    unsigned found = 0;
    for (stapes__enter(json, '{'); stapes__more(json, seen++, '}');) {
        const char *key = stapes__key(json);
        unsigned field = !strcmp(key, "seconds") ? 1 : !strcmp(key, "tolerance") ? 2 : !strcmp(key, "logits") ? 4 : 0;
        if (found & field) stapes__problem(json, "a key that comes twice");
        found |= field;
        if (field == 1) {
            model->golden_seconds = stapes__number(json);
        } else if (field == 2) {
            model->tolerance = stapes__number(json);
        } else if (field == 4) {
            for (stapes__enter(json, '['); stapes__more(json, logits, ']'); logits++) {
                void *grown = stapes__grown(model->golden, logits, sizeof *model->golden);
                if (!grown) return 0;
                model->golden = (double *)grown;
                model->golden[logits] = stapes__number(json);
                if (logits == STAPES__MOST_ITEMS) stapes__problem(json, "a list that is too long");
            }
        } else {
            stapes__skip(json);
        }
    }
    if (found != 7) stapes__problem(json, "a golden test without seconds, tolerance or logits");
    if (!json->problem && logits != model->label_count) stapes__problem(json, "a golden test for another number of labels");
    return 1;
}

static void stapes__frontend(stapes__json *json, stapes_model *model) {
    size_t seen = 0, found = 0;
    for (stapes__enter(json, '{'); stapes__more(json, seen++, '}');) {
        if (strcmp(stapes__key(json), "min_samples")) {
            stapes__skip(json);
        } else {
            model->min_samples = stapes__whole(json, 1, 1 << 24);
            found++;
        }
    }
    if (found != 1) stapes__problem(json, "a frontend without min_samples, or with two");
}

/* The schema's number alone: a newer one may say everything else in another way. */
static double stapes__schema(const char *manifest, char *text, const char **problem) {
    stapes__json json = {manifest, text, 0, NULL};
    double schema = -1;
    size_t seen = 0;
    for (stapes__enter(&json, '{'); stapes__more(&json, seen++, '}');) {
        if (strcmp(stapes__key(&json), "schema")) {
            stapes__skip(&json);
        } else if (schema >= 0) {
            stapes__problem(&json, "a key that comes twice");
        } else {
            schema = stapes__number(&json);
        }
    }
    stapes__space(&json);
    if (*json.at) stapes__problem(&json, "something behind its end");
    if (schema < 1) stapes__problem(&json, "no schema number");
    *problem = json.problem;
    return schema;
}

/* Reads the manifest into the model, whose strings then lie in model->text. 0 where there is no memory. */
static int stapes__manifest(const char *manifest, stapes_model *model, const char **problem) {
    static const char *const keys[] = {"name", "rate", "labels", "frontend", "frontend_in_graph", "needs", "golden"};
    enum { NAME = 1, RATE = 2, LABELS = 4, FRONTEND = 8, IN_GRAPH = 16, NEEDS = 32, GOLDEN = 64, ALL = 127 };
    stapes__json json = {manifest, model->text, 0, NULL};
    const char *golden = NULL; /* read last, when the labels are counted */
    int in_graph = 0;
    unsigned found = 0;
    size_t seen = 0;
    for (stapes__enter(&json, '{'); stapes__more(&json, seen++, '}');) {
        const char *key = stapes__key(&json);
        unsigned field = 0;
        for (unsigned i = 0; i < sizeof keys / sizeof *keys; i++)
            if (!strcmp(key, keys[i])) field = 1u << i;
        if (found & field) stapes__problem(&json, "a key that comes twice");
        found |= field;
        if (field == NAME) {
            model->name = stapes__string(&json);
        } else if (field == RATE) {
            model->rate = (int)stapes__whole(&json, 100, 1000000);
        } else if (field == LABELS) {
            if (!stapes__strings(&json, &model->labels, &model->label_count)) return 0;
        } else if (field == NEEDS) {
            if (!stapes__strings(&json, &model->needs, &model->need_count)) return 0;
        } else if (field == FRONTEND) {
            stapes__frontend(&json, model);
        } else if (field == IN_GRAPH) {
            in_graph = stapes__word(&json, "true");
            if (!in_graph && !stapes__word(&json, "false")) stapes__problem(&json, "a frontend_in_graph that is neither true nor false");
        } else {
            if (field == GOLDEN && !stapes__word(&json, "null")) golden = json.at;
            if (field != GOLDEN || golden) stapes__skip(&json);
        }
    }
    if ((found | GOLDEN) != ALL) stapes__problem(&json, "no name, rate, labels, frontend, frontend_in_graph or needs");
    if (!json.problem && !model->label_count) stapes__problem(&json, "no labels");
    if (!json.problem && !in_graph) stapes__problem(&json, "a frontend outside of the graph, which other hosts bring along (--layout hub)");
    if (!json.problem && golden) {
        json.at = golden;
        if (!stapes__golden(&json, model)) return 0;
    }
    *problem = json.problem;
    return 1;
}

/* ONNX Runtime */

/* STAPES_OK where `status` is NULL, else its text; the status is released. */
static stapes_code stapes__status(const OrtApi *ort, OrtStatus *status, const char *what, stapes_error *error) {
    stapes_code code = STAPES_OK;
    if (status) {
        const char *text = ort->GetErrorMessage(status);
        code = stapes__fail(error, STAPES_BAD_MODEL, "ONNX Runtime %s %s: %s", OrtGetApiBase()->GetVersionString(), what, text);
        ort->ReleaseStatus(status);
    }
    return code;
}

/* Memory of ONNX Runtime's default allocator. */
static void stapes__release(const OrtApi *ort, OrtAllocator *allocator, char *text) {
    OrtStatus *status = text ? ort->AllocatorFree(allocator, text) : NULL;
    if (status) ort->ReleaseStatus(status);
}

static OrtStatus *stapes__configure(const OrtApi *ort, OrtSessionOptions *to, int threads, int severity) {
    OrtStatus *status = ort->SetSessionLogSeverityLevel(to, severity);
    if (!status) status = ort->AddSessionConfigEntry(to, "session.load_model_format", "ONNX");    /* whatever the file is called */
    if (!status) status = ort->AddSessionConfigEntry(to, "session.intra_op.allow_spinning", "0"); /* waiting threads leave the CPU alone */
    if (!status) status = ort->DisableMemPattern(to); /* plans memory for each length anew, which wins nothing where lengths differ */
    if (!status && threads) status = ort->SetIntraOpNumThreads(to, threads);
    return status;
}

#ifdef _WIN32
static OrtStatus *stapes__from_path(stapes_model *model, const char *path, const OrtSessionOptions *options) {
    wchar_t wide[32768]; /* the longest path of Windows */
    if (!MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, 32768)) wide[0] = 0;
    return model->ort->CreateSession(model->env, wide, options, &model->session);
}
#else
static OrtStatus *stapes__from_path(stapes_model *model, const char *path, const OrtSessionOptions *options) {
    return model->ort->CreateSession(model->env, path, options, &model->session);
}
#endif

/* A regular file: a pipe would be waited for, and a directory's error says something else. */
static stapes_code stapes__check_file(const char *path, stapes_error *error) {
    struct stat file;
    if (stat(path, &file)) {
        int reason = errno;
        if (reason == ENOENT || reason == ENOTDIR) return stapes__fail(error, STAPES_NO_FILE, "no model at %.300s; check the path", path);
        return stapes__fail(error, STAPES_NO_FILE, "cannot read a model from %.300s: %s", path, strerror(reason));
    }
    if (!S_ISREG(file.st_mode)) return stapes__fail(error, STAPES_NO_FILE, "%.300s is no regular file, which a model has to be", path);
    return STAPES_OK;
}

/* Whether `wanted` is among the session's inputs, or its outputs. */
static stapes_code stapes__check_name(const stapes_model *model, OrtAllocator *allocator, int input, size_t count, const char *wanted,
                                      stapes_error *error) {
    const OrtApi *ort = model->ort;
    for (size_t i = 0; i < count; i++) {
        char *name = NULL;
        OrtStatus *status = (input ? ort->SessionGetInputName : ort->SessionGetOutputName)(model->session, i, allocator, &name);
        int same;
        if (status) return stapes__status(ort, status, "cannot read the graph's names", error);
        same = !strcmp(name, wanted);
        stapes__release(ort, allocator, name);
        if (same) return STAPES_OK;
    }
    return stapes__fail(error, STAPES_BAD_MODEL, "the graph has no %s %s; export the model again", input ? "input" : "output", wanted);
}

/* The graph takes waveform and lengths and nothing else, and gives logits and scores. */
static stapes_code stapes__check_graph(const stapes_model *model, OrtAllocator *allocator, stapes_error *error) {
    static const char *const names[] = {"waveform", "lengths", "logits", "scores"};
    size_t counts[2];
    OrtStatus *status = model->ort->SessionGetInputCount(model->session, &counts[0]);
    if (!status) status = model->ort->SessionGetOutputCount(model->session, &counts[1]);
    if (status) return stapes__status(model->ort, status, "cannot read the graph's names", error);
    if (counts[0] != 2)
        return stapes__fail(error, STAPES_BAD_MODEL, "the graph has %zu inputs instead of waveform and lengths; export the model again",
                            counts[0]);
    for (int i = 0; i < 4; i++) {
        stapes_code code = stapes__check_name(model, allocator, i < 2, counts[i / 2], names[i], error);
        if (code) return code;
    }
    return STAPES_OK;
}

static stapes_code stapes__read_manifest(stapes_model *model, const char *manifest, stapes_error *error) {
    const char *problem = NULL;
    double schema;
    model->text = (char *)malloc(strlen(manifest) + 1);
    if (!model->text) return stapes__no_memory(error);
    schema = stapes__schema(manifest, model->text, &problem);
    if (!problem && schema > STAPES__SCHEMA)
        return stapes__fail(error, STAPES_NEWER_SCHEMA,
                            "the model has manifest schema %.0f and this stapes.h reads up to %d; take a newer stapes.h", schema,
                            STAPES__SCHEMA);
    if (!problem && !stapes__manifest(manifest, model, &problem)) return stapes__no_memory(error);
    if (problem)
        return stapes__fail(error, STAPES_BAD_MODEL,
                            "the model's manifest has %s; the file is damaged, or was not made for this host: export the model again",
                            problem);
    return STAPES_OK;
}

/* The manifest in the loaded model's metadata. */
static stapes_code stapes__describe(stapes_model *model, stapes_error *error) {
    const OrtApi *ort = model->ort;
    OrtModelMetadata *metadata = NULL;
    OrtAllocator *allocator = NULL;
    char *manifest = NULL;
    stapes_code code;
    OrtStatus *status = ort->GetAllocatorWithDefaultOptions(&allocator);
    if (!status) status = ort->SessionGetModelMetadata(model->session, &metadata);
    if (!status) status = ort->ModelMetadataLookupCustomMetadataMap(metadata, allocator, "stapes", &manifest);
    code = stapes__status(ort, status, "cannot read the model's metadata", error);
    if (!code && !manifest)
        code = stapes__fail(
            error, STAPES_NO_MANIFEST,
            "the model is an ONNX file without a stapes manifest; make one with `stapes export` from the checkpoint it came from");
    if (!code) code = stapes__read_manifest(model, manifest, error);
    if (!code) code = stapes__check_graph(model, allocator, error);
    stapes__release(ort, allocator, manifest);
    if (metadata) ort->ReleaseModelMetadata(metadata);
    return code;
}

static stapes_code stapes__open(stapes_model *model, const char *path, const void *bytes, size_t size, stapes_options wanted,
                                stapes_error *error) {
    const OrtApi *ort = model->ort = OrtGetApiBase()->GetApi(STAPES__ORT_VERSION);
    OrtSessionOptions *options = NULL;
    OrtStatus *status;
    stapes_code code;
    int severity = ORT_LOGGING_LEVEL_FATAL - wanted.log_level;
    char what[400];
    if (!ort)
        return stapes__fail(error, STAPES_OLD_RUNTIME, "ONNX Runtime %s is too old; stapes.h needs 1.%d or later",
                            OrtGetApiBase()->GetVersionString(), STAPES__ORT_VERSION);
    snprintf(what, sizeof what, "cannot load %.300s", path ? path : "the model in memory");
    status = ort->CreateEnv((OrtLoggingLevel)severity, "stapes", &model->env);
    if (!status) status = ort->CreateSessionOptions(&options);
    if (!status) status = stapes__configure(ort, options, wanted.threads, severity);
    if (!status)
        status =
            path ? stapes__from_path(model, path, options) : ort->CreateSessionFromArray(model->env, bytes, size, options, &model->session);
    if (!status) status = ort->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &model->memory);
    if (options) ort->ReleaseSessionOptions(options);
    code = stapes__status(ort, status, what, error);
    return code ? code : stapes__describe(model, error);
}

static stapes_code stapes__load(const char *path, const void *bytes, size_t size, const stapes_options *options, stapes_model **model,
                                stapes_error *error) {
    stapes_options wanted = {0, 0};
    stapes_code code;
    if (options) wanted = *options;
    *model = NULL;
    if (wanted.threads < 0 || wanted.threads > 1024)
        return stapes__fail(error, STAPES_BAD_ARGUMENT, "threads is a number from 0 (ONNX Runtime's choice) to 1024, not %d",
                            wanted.threads);
    if (wanted.log_level < 0 || wanted.log_level > 4)
        return stapes__fail(error, STAPES_BAD_ARGUMENT, "log_level is a number from 0 to 4, not %d", wanted.log_level);
    if (!(*model = (stapes_model *)calloc(1, sizeof **model))) return stapes__no_memory(error);
    code = stapes__open(*model, path, bytes, size, wanted, error);
    if (code) {
        stapes_free(*model);
        *model = NULL;
        return code;
    }
    return stapes__ok(error);
}

stapes_code stapes_load(const char *path, const stapes_options *options, stapes_model **model, stapes_error *error) {
    stapes_code code;
    if (!model || !path) return stapes__fail(error, STAPES_BAD_ARGUMENT, "stapes_load needs a path and a place for the model, not NULL");
    *model = NULL;
    code = stapes__check_file(path, error);
    return code ? code : stapes__load(path, NULL, 0, options, model, error);
}

stapes_code stapes_load_memory(const void *bytes, size_t size, const stapes_options *options, stapes_model **model, stapes_error *error) {
    if (!model || !bytes)
        return stapes__fail(error, STAPES_BAD_ARGUMENT, "stapes_load_memory needs a model's bytes and a place for the model, not NULL");
    return stapes__load(NULL, bytes, size, options, model, error);
}

void stapes_free(stapes_model *model) {
    if (!model) return;
    if (model->memory) model->ort->ReleaseMemoryInfo(model->memory);
    if (model->session) model->ort->ReleaseSession(model->session);
    if (model->env) model->ort->ReleaseEnv(model->env);
    free(model->golden);
    free((void *)model->needs);
    free((void *)model->labels);
    free(model->text);
    free(model);
}

const char *stapes_name(const stapes_model *model) { return model->name; }
int stapes_rate(const stapes_model *model) { return model->rate; }
size_t stapes_min_samples(const stapes_model *model) { return model->min_samples; }
size_t stapes_label_count(const stapes_model *model) { return model->label_count; }
const char *stapes_label(const stapes_model *model, size_t index) { return index < model->label_count ? model->labels[index] : NULL; }
const char *stapes_need(const stapes_model *model, size_t index) { return index < model->need_count ? model->needs[index] : NULL; }
double stapes_tolerance(const stapes_model *model) { return model->golden ? model->tolerance : 0; }

/* Copies an output of one number a label, if it is that. */
static stapes_code stapes__copy(const stapes_model *model, OrtValue *value, const char *output, float *into, stapes_error *error) {
    const OrtApi *ort = model->ort;
    OrtTensorTypeAndShapeInfo *info = NULL;
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    size_t count = 0;
    void *values = NULL;
    int tensor = 0;
    OrtStatus *status = value ? ort->IsTensor(value, &tensor) : NULL; /* an optional output may be NULL */
    if (!status && tensor) status = ort->GetTensorTypeAndShape(value, &info);
    if (!status && tensor) status = ort->GetTensorElementType(info, &type);
    if (!status && tensor) status = ort->GetTensorShapeElementCount(info, &count);
    if (!status && tensor) status = ort->GetTensorMutableData(value, &values);
    if (info) ort->ReleaseTensorTypeAndShapeInfo(info);
    if (status) return stapes__status(ort, status, "cannot read the model's answer", error);
    if (!tensor || type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT || count != model->label_count)
        return stapes__fail(error, STAPES_BAD_MODEL,
                            "the graph's %s are %s%zu numbers and not one float for each of %zu labels; export the model again", output,
                            type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT ? "" : "no floats, ", count, model->label_count);
    memcpy(into, values, count * sizeof *into);
    return STAPES_OK;
}

/* One output for one clip: label_count floats. */
static stapes_code stapes__run(const stapes_model *model, const float *samples, size_t count, const char *output, float *into,
                               stapes_error *error) {
    static const char *const names[] = {"waveform", "lengths"};
    const OrtApi *ort = model->ort;
    int64_t lengths[1] = {(int64_t)count}, shape[2] = {1, (int64_t)count};
    OrtValue *inputs[2] = {NULL, NULL}, *result = NULL;
    stapes_code code;
    OrtStatus *status = ort->CreateTensorWithDataAsOrtValue(model->memory, (void *)samples, count * sizeof *samples, shape, 2,
                                                            ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &inputs[0]);
    if (!status)
        status = ort->CreateTensorWithDataAsOrtValue(model->memory, lengths, sizeof lengths, shape, 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
                                                     &inputs[1]);
    if (!status) status = ort->Run(model->session, NULL, names, (const OrtValue *const *)inputs, 2, &output, 1, &result);
    code = status ? stapes__status(ort, status, "failed to run the model", error) : stapes__copy(model, result, output, into, error);
    for (int i = 0; i < 2; i++)
        if (inputs[i]) ort->ReleaseValue(inputs[i]);
    if (result) ort->ReleaseValue(result);
    return code;
}

/* Sound */

static stapes_code stapes__check_sound(const stapes_model *model, const stapes_sound *sound, stapes_error *error) {
    if (!sound->samples && sound->frames) return stapes__fail(error, STAPES_BAD_ARGUMENT, "the sound's samples are NULL");
    if (sound->format != STAPES_FLOAT && sound->format != STAPES_INT16)
        return stapes__fail(error, STAPES_BAD_ARGUMENT, "the sound's format is STAPES_FLOAT or STAPES_INT16, not %d", (int)sound->format);
    if (sound->channels < 1 || sound->channels > STAPES__MOST_CHANNELS)
        return stapes__fail(error, STAPES_BAD_ARGUMENT, "the sound has %d channels; 1 to %d are averaged: give one of more",
                            sound->channels, STAPES__MOST_CHANNELS);
    if (sound->rate != model->rate)
        return stapes__fail(error, STAPES_WRONG_RATE,
                            "the sound has %d samples a second and %.80s takes %d: resample it, or export the model with --input-rate",
                            sound->rate, model->name, model->rate);
    if (sound->frames > STAPES_MOST_FRAMES || sound->frames > SIZE_MAX / sizeof(float) / STAPES__MOST_CHANNELS)
        return stapes__fail(error, STAPES_TOO_LONG, "the sound has %zu samples, more than the %zu of one call: classify it in windows",
                            sound->frames, STAPES_MOST_FRAMES);
    if (sound->frames < model->min_samples)
        return stapes__fail(error, STAPES_TOO_SHORT,
                            "the sound has %zu samples (%.1f ms) and %.80s needs %zu (%.1f ms) at %d Hz: give a longer one", sound->frames,
                            1e3 * (double)sound->frames / model->rate, model->name, model->min_samples,
                            1e3 * (double)model->min_samples / model->rate, model->rate);
    return STAPES_OK;
}

static float stapes__sample(const stapes_sound *sound, size_t index) {
    if (sound->format == STAPES_INT16) {
        int16_t value;
        memcpy(&value, (const char *)sound->samples + index * sizeof value, sizeof value);
        return (float)value / 32768.0f;
    } else {
        float value;
        memcpy(&value, (const char *)sound->samples + index * sizeof value, sizeof value);
        return value;
    }
}

/* The mean of the channels, `frames` floats into `mono`. */
static stapes_code stapes__mono(const stapes_sound *sound, float *mono, stapes_error *error) {
    size_t channels = (size_t)sound->channels;
    for (size_t frame = 0; frame < sound->frames; frame++) {
        double sum = 0;
        for (size_t channel = 0; channel < channels; channel++) sum += stapes__sample(sound, frame * channels + channel);
        mono[frame] = (float)(sum / (double)channels);
        if (!isfinite(mono[frame]))
            return stapes__fail(error, STAPES_NOT_FINITE,
                                "sample %zu of the sound is NaN or infinite, which has no answer: clean it before", frame);
    }
    return STAPES_OK;
}

/* Best first; equal ones in the model's order, as qsort alone would not keep them. */
static int stapes__better(const void *left, const void *right) {
    const stapes_prediction *a = (const stapes_prediction *)left, *b = (const stapes_prediction *)right;
    if (a->score != b->score) return a->score > b->score ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

static stapes_code stapes__rank(const stapes_model *model, const float *scores, stapes_prediction *all, stapes_error *error) {
    for (size_t i = 0; i < model->label_count; i++) {
        if (isnan(scores[i]))
            return stapes__fail(error, STAPES_BAD_MODEL, "%.80s gives NaN as the score of %.80s; verify the model on this host",
                                model->name, model->labels[i]);
        all[i].label = model->labels[i];
        all[i].score = scores[i];
        all[i].index = i;
    }
    qsort(all, model->label_count, sizeof *all, stapes__better);
    return STAPES_OK;
}

stapes_code stapes_classify(const stapes_model *model, const stapes_sound *sound, stapes_prediction *top, size_t room, size_t *found,
                            stapes_error *error) {
    stapes_prediction *all;
    float *mono, *scores;
    stapes_code code;
    if (found) *found = 0;
    if (!model || !sound || !top || !found)
        return stapes__fail(error, STAPES_BAD_ARGUMENT, "stapes_classify needs a model, a sound, and places for what is found, not NULL");
    if (!room) return stapes__fail(error, STAPES_BAD_ARGUMENT, "there is room for 0 predictions; ask for 1 or more");
    if ((code = stapes__check_sound(model, sound, error))) return code;
    mono = (float *)malloc(sound->frames * sizeof *mono);
    scores = (float *)malloc(model->label_count * sizeof *scores);
    all = (stapes_prediction *)malloc(model->label_count * sizeof *all);
    code = mono && scores && all ? stapes__mono(sound, mono, error) : stapes__no_memory(error);
    if (!code) code = stapes__run(model, mono, sound->frames, "scores", scores, error);
    if (!code) code = stapes__rank(model, scores, all, error);
    if (!code) {
        *found = room < model->label_count ? room : model->label_count;
        memcpy(top, all, *found * sizeof *top);
        stapes__ok(error);
    }
    free(all);
    free(scores);
    free(mono);
    return code;
}

/* The golden test */

/* A sweep from 100 to 3400 Hz in four swells a second, and noise of a linear congruential generator. */
static void stapes__golden_signal(float *into, size_t count, double seconds, int rate) {
    const double turn = 6.283185307179586476925286766559;
    uint32_t state = 1;
    for (size_t i = 0; i < count; i++) {
        double t = (double)i / rate;
        double sweep = sin(turn * (100 * t + (3400 - 100) * t * t / (2 * seconds))), swell = 0.5 - 0.5 * cos(turn * 4 * t);
        state = 1664525u * state + 1013904223u;
        into[i] = (float)(0.4 * sweep * swell + 0.1 * (state / 2147483648.0 - 1));
    }
}

stapes_code stapes_verify(const stapes_model *model, double *difference, stapes_error *error) {
    double largest = 0, samples;
    float *signal, *logits;
    stapes_code code;
    if (!model) return stapes__fail(error, STAPES_BAD_ARGUMENT, "stapes_verify needs a model, not NULL");
    if (!model->golden)
        return stapes__fail(error, STAPES_BAD_MODEL, "%.80s has no golden test; `stapes export` from its checkpoint makes a model with one",
                            model->name);
    samples = rint(model->golden_seconds * model->rate);
    if (!(model->golden_seconds <= STAPES__GOLDEN_S && samples <= STAPES__GOLDEN_S * 48000 && samples >= (double)model->min_samples))
        return stapes__fail(error, STAPES_BAD_MODEL,
                            "%.80s has a golden test of %g s at %d Hz, which makes no sense; export the model again", model->name,
                            model->golden_seconds, model->rate);
    signal = (float *)malloc((size_t)samples * sizeof *signal);
    logits = (float *)malloc(model->label_count * sizeof *logits);
    code = signal && logits ? STAPES_OK : stapes__no_memory(error);
    if (!code) {
        stapes__golden_signal(signal, (size_t)samples, model->golden_seconds, model->rate);
        code = stapes__run(model, signal, (size_t)samples, "logits", logits, error);
    }
    for (size_t i = 0; !code && i < model->label_count; i++) {
        double off = fabs((double)logits[i] - model->golden[i]);
        if (!(off <= largest)) largest = off; /* NaN stays: nothing is smaller or equal */
        if (isnan(largest)) break;
    }
    free(logits);
    free(signal);
    if (code) return code;
    if (difference) *difference = largest;
    if (largest <= model->tolerance) return stapes__ok(error);
    return stapes__fail(error, STAPES_GOLDEN_FAILED,
                        "%.80s: logits are off by %.3g from the exporter's (tolerance %.2g) with ONNX Runtime %s%s%.80s%s", model->name,
                        largest, model->tolerance, OrtGetApiBase()->GetVersionString(),
                        model->need_count ? "; a CPU without " : "; try another version of it", model->need_count ? model->needs[0] : "",
                        model->need_count ? " and its like computes int8 wrongly: export with --precision int8-portable" : "");
}

#ifdef __cplusplus
}
#endif
#endif /* STAPES_IMPLEMENTATION */
