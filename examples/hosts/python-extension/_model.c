/* stapes.h for CPython's stable ABI: Model(path or bytes) and model.classify(buffer, rate).

   Everything lives in the module's state or in its objects, so that each interpreter may have its own, and import it again. */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define STAPES_IMPLEMENTATION
#include "stapes.h"

typedef struct {
    PyObject *error, *model_error, *model_not_found, *audio_error;
} state;

typedef struct {
    PyObject ob_base;
    stapes_model *model;
} model_object;

/* Raises what the code is in Python; always NULL. */
static PyObject *raise_error(PyTypeObject *type, const stapes_error *error) {
    state *own = (state *)PyType_GetModuleState(type);
    PyObject *kind = own->model_error;
    switch (error->code) {
    case STAPES_BAD_ARGUMENT: kind = own->error; break;
    case STAPES_NO_MEMORY: return PyErr_NoMemory();
    case STAPES_NO_FILE: kind = own->model_not_found; break;
    case STAPES_WRONG_RATE:
    case STAPES_TOO_SHORT:
    case STAPES_TOO_LONG:
    case STAPES_NOT_FINITE: kind = own->audio_error; break;
    default: break;
    }
    PyErr_SetString(kind, error->text);
    return NULL;
}

static stapes_code load(PyObject *source, const stapes_options *options, stapes_model **model, stapes_error *error) {
    stapes_code code = STAPES_BAD_ARGUMENT;
    if (PyObject_CheckBuffer(source)) {
        Py_buffer view;
        if (PyObject_GetBuffer(source, &view, PyBUF_SIMPLE)) return code;
        Py_BEGIN_ALLOW_THREADS
            code = stapes_load_memory(view.len ? view.buf : "", (size_t)view.len, options, model, error);
        Py_END_ALLOW_THREADS
        PyBuffer_Release(&view);
    } else {
        PyObject *path;
        if (!PyUnicode_FSConverter(source, &path)) return code;
        const char *name = PyBytes_AsString(path);
        Py_BEGIN_ALLOW_THREADS
            code = stapes_load(name, options, model, error);
        Py_END_ALLOW_THREADS
        Py_DECREF(path);
    }
    return code;
}

static PyObject *model_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"source", "threads", NULL};
    stapes_options options = {0, 0};
    stapes_error error;
    PyObject *source;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|i:Model", names, &source, &options.threads)) return NULL;
    model_object *self = (model_object *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (!self) return NULL;
    if (load(source, &options, &self->model, &error)) {
        if (!PyErr_Occurred()) raise_error(type, &error);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void model_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    stapes_free(((model_object *)self)->model);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* The buffer as a sound: float32 or int16 in the host's own order, (frames x channels,) or (frames, channels). -1 with an error set. */
static int sound_of(PyTypeObject *type, const Py_buffer *view, stapes_sound *sound) {
    state *own = (state *)PyType_GetModuleState(type);
    const char *format = view->format ? view->format : "B";
    const int one = 1;
    Py_ssize_t samples = view->itemsize ? view->len / view->itemsize : 0;
    if (*format == '@' || *format == '=' || *format == (*(const char *)&one ? '<' : '>')) format++;
    if (strcmp(format, "f") && strcmp(format, "h")) {
        PyErr_Format(PyExc_TypeError, "samples are float32 (format 'f') or int16 ('h'), not '%.20s'", view->format ? view->format : "B");
        return -1;
    }
    if (view->ndim > 2 || (view->ndim == 2 && view->shape[1] != sound->channels)) {
        PyErr_Format(own->audio_error, "samples are (frames x channels,) or (frames, channels) of %d channels, not of %d axes%s",
                     sound->channels, view->ndim, view->ndim == 2 ? " with another number of channels" : "");
        return -1;
    }
    if (sound->channels < 1 || samples % sound->channels) {
        PyErr_Format(own->audio_error, "%zd samples are no whole number of frames of %d channels", samples, sound->channels);
        return -1;
    }
    sound->samples = view->buf;
    sound->format = *format == 'h' ? STAPES_INT16 : STAPES_FLOAT;
    sound->frames = (size_t)(samples / sound->channels);
    return 0;
}

static PyObject *predictions(const stapes_prediction *top, size_t count) {
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++) {
        PyObject *pair = Py_BuildValue("(sd)", top[i].label, (double)top[i].score);
        if (!pair || PyList_SetItem(list, (Py_ssize_t)i, pair)) Py_CLEAR(list);
    }
    return list;
}

static PyObject *model_classify(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"samples", "rate", "channels", "top_k", NULL};
    const stapes_model *model = ((model_object *)self)->model;
    size_t room = stapes_label_count(model), found = 0;
    stapes_sound sound = {NULL, STAPES_FLOAT, 0, 1, 0};
    stapes_error error;
    stapes_code code;
    PyObject *samples, *top_k = NULL, *result = NULL;
    Py_buffer view;
    Py_ssize_t k = 5;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Oi|iO:classify", names, &samples, &sound.rate, &sound.channels, &top_k)) return NULL;
    if (top_k && top_k != Py_None && (k = PyNumber_AsSsize_t(top_k, NULL)) == -1 && PyErr_Occurred()) return NULL;
    if (k < 1) return PyErr_Format(PyExc_ValueError, "top_k is 1 or more, or None for all, not %zd", k);
    if (top_k != Py_None && (size_t)k < room) room = (size_t)k;
    if (PyObject_GetBuffer(samples, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)) return NULL;
    stapes_prediction *top = (stapes_prediction *)PyMem_Malloc(room * sizeof *top);
    if (!top) {
        PyErr_NoMemory();
    } else if (!sound_of(Py_TYPE(self), &view, &sound)) {
        Py_BEGIN_ALLOW_THREADS
            code = stapes_classify(model, &sound, top, room, &found, &error);
        Py_END_ALLOW_THREADS
        result = code ? raise_error(Py_TYPE(self), &error) : predictions(top, found);
    }
    PyMem_Free(top);
    PyBuffer_Release(&view);
    return result;
}

static PyObject *model_verify(PyObject *self, PyObject *unused) {
    double difference = 0;
    stapes_error error;
    stapes_code code;
    (void)unused;
    Py_BEGIN_ALLOW_THREADS
        code = stapes_verify(((model_object *)self)->model, &difference, &error);
    Py_END_ALLOW_THREADS
    return code ? raise_error(Py_TYPE(self), &error) : PyFloat_FromDouble(difference);
}

static PyObject *model_name(PyObject *self, void *unused) {
    (void)unused;
    return PyUnicode_FromString(stapes_name(((model_object *)self)->model));
}

static PyObject *model_rate(PyObject *self, void *unused) {
    (void)unused;
    return PyLong_FromLong(stapes_rate(((model_object *)self)->model));
}

static PyObject *model_min_samples(PyObject *self, void *unused) {
    (void)unused;
    return PyLong_FromSize_t(stapes_min_samples(((model_object *)self)->model));
}

static PyObject *model_labels(PyObject *self, void *unused) {
    const stapes_model *model = ((model_object *)self)->model;
    size_t count = stapes_label_count(model);
    PyObject *labels = PyTuple_New((Py_ssize_t)count);
    (void)unused;
    for (size_t i = 0; labels && i < count; i++) {
        PyObject *label = PyUnicode_FromString(stapes_label(model, i));
        if (!label || PyTuple_SetItem(labels, (Py_ssize_t)i, label)) Py_CLEAR(labels);
    }
    return labels;
}

static PyMethodDef methods[] = {
    {"classify", (PyCFunction)(void (*)(void))model_classify, METH_VARARGS | METH_KEYWORDS,
     "classify($self, samples, rate, channels=1, top_k=5)\n--\n\n"
     "The top_k labels with their scores, best first; None for all.\n\n"
     "samples: a contiguous buffer of float32 or int16, channels interleaved. Raises AudioError for a sound that cannot be classified."},
    {"verify", model_verify, METH_NOARGS,
     "verify($self)\n--\n\nThe largest difference of a logit in the golden test. Raises ModelError where it is beyond the tolerance."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
    {"name", model_name, NULL, "The model's name.", NULL},
    {"labels", model_labels, NULL, "Its labels, in the order of its outputs.", NULL},
    {"rate", model_rate, NULL, "Samples a second that it takes.", NULL},
    {"min_samples", model_min_samples, NULL, "Samples of the shortest sound.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot model_slots[] = {
    {Py_tp_new, (void *)model_new},
    {Py_tp_dealloc, (void *)model_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, attributes},
    {Py_tp_doc, "Model(source, threads=0)\n--\n\n"
                "A loaded model: source is its path, or its bytes. Any number of threads may use it at once.\n\n"
                "threads: within one call; 0 leaves it to ONNX Runtime."},
    {0, NULL},
};

static PyType_Spec model_spec = {"stapes_host.Model", sizeof(model_object), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, model_slots};

/* A new exception under its name in the module; the state's reference, or NULL. */
static PyObject *add_error(PyObject *module, const char *name, const char *doc, PyObject *base, PyObject *builtin) {
    char full[64];
    PyObject *bases = base && builtin ? PyTuple_Pack(2, base, builtin) : NULL, *made;
    snprintf(full, sizeof full, "stapes_host.%s", name);
    made = PyErr_NewExceptionWithDoc(full, doc, bases ? bases : base ? base : builtin, NULL);
    Py_XDECREF(bases);
    if (made && PyModule_AddObjectRef(module, name, made)) Py_CLEAR(made);
    return made;
}

static int execute(PyObject *module) {
    state *own = (state *)PyModule_GetState(module);
    PyObject *type;
    int failed;
    if (!(own->error = add_error(module, "Error", "Base of every error here.", NULL, PyExc_ValueError))) return -1;
    if (!(own->model_error = add_error(module, "ModelError", "The model cannot be used here.", own->error, NULL))) return -1;
    own->model_not_found = add_error(module, "ModelNotFound", "No model at that path.", own->model_error, PyExc_FileNotFoundError);
    if (!own->model_not_found) return -1;
    if (!(own->audio_error = add_error(module, "AudioError", "The sound cannot be classified.", own->error, NULL))) return -1;
    if (!(type = PyType_FromModuleAndSpec(module, &model_spec, NULL))) return -1;
    failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}

static int traverse(PyObject *module, visitproc visit, void *arg) {
    state *own = (state *)PyModule_GetState(module);
    Py_VISIT(own->error);
    Py_VISIT(own->model_error);
    Py_VISIT(own->model_not_found);
    Py_VISIT(own->audio_error);
    return 0;
}

static int clear(PyObject *module) {
    state *own = (state *)PyModule_GetState(module);
    Py_CLEAR(own->error);
    Py_CLEAR(own->model_error);
    Py_CLEAR(own->model_not_found);
    Py_CLEAR(own->audio_error);
    return 0;
}

static void release(void *module) { clear((PyObject *)module); }

#define DOC "A stapes model in a process without NumPy and the onnxruntime package."
#define PER_INTERPRETER_GIL {3, (void *)2} /* Py_mod_multiple_interpreters, which the headers of the stable ABI of 3.11 do not name */

static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)execute}, {0, NULL}};
static PyModuleDef_Slot isolated_slots[] = {{Py_mod_exec, (void *)execute}, PER_INTERPRETER_GIL, {0, NULL}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_model", DOC, sizeof(state), NULL, slots, traverse, clear, release};
static PyModuleDef isolated = {PyModuleDef_HEAD_INIT, "_model", DOC, sizeof(state), NULL, isolated_slots, traverse, clear, release};

PyMODINIT_FUNC PyInit__model(void) {
    return PyModuleDef_Init(Py_Version >= 0x030C0000 ? &isolated : &definition); /* 3.11 refuses a slot that it does not know */
}
