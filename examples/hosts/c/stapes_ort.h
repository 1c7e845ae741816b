/* What stapes.h calls of ONNX Runtime's C API, for where there is its library and not its header, as in the Python wheel.

   OrtGetApiBase()->GetApi(14) gives a table of functions to which later versions only append, so that a function's place in it is the same
   in every release since 1.14 (and NULL is given by older ones). Names and types are the API's own, so that stapes.h reads the same with
   either header; members without a name here are functions that it has no use for. */
#ifndef STAPES_ORT_H
#define STAPES_ORT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifdef _WIN32
#define ORT_API_CALL __stdcall
typedef wchar_t ORTCHAR_T;
#else
#define ORT_API_CALL
typedef char ORTCHAR_T;
#endif

typedef struct OrtStatus OrtStatus;
typedef struct OrtEnv OrtEnv;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtValue OrtValue;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtAllocator OrtAllocator;
typedef struct OrtModelMetadata OrtModelMetadata;

typedef enum OrtLoggingLevel { ORT_LOGGING_LEVEL_VERBOSE = 0, ORT_LOGGING_LEVEL_FATAL = 4 } OrtLoggingLevel;
typedef enum ONNXTensorElementDataType {
    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 = 7,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_OTHERS = 255
} ONNXTensorElementDataType;
typedef enum OrtAllocatorType { OrtDeviceAllocator = 0, OrtArenaAllocator = 1 } OrtAllocatorType;
typedef enum OrtMemType { OrtMemTypeDefault = 0 } OrtMemType;

#define STAPES_ORT_UNUSED(first, last) void *unused_from_##first[(last) - (first) + 1]
#define STAPES_ORT_CALL(name) OrtStatus *(ORT_API_CALL * name)
#define STAPES_ORT_RELEASE(type) void(ORT_API_CALL * Release##type)(Ort##type *)

typedef struct OrtApi {
    STAPES_ORT_UNUSED(0, 1);
    const char *(ORT_API_CALL *GetErrorMessage)(const OrtStatus *);
    STAPES_ORT_CALL(CreateEnv)(OrtLoggingLevel, const char *name, OrtEnv **);
    STAPES_ORT_UNUSED(4, 6);
    STAPES_ORT_CALL(CreateSession)(const OrtEnv *, const ORTCHAR_T *path, const OrtSessionOptions *, OrtSession **);
    STAPES_ORT_CALL(CreateSessionFromArray)(const OrtEnv *, const void *bytes, size_t size, const OrtSessionOptions *, OrtSession **);
    STAPES_ORT_CALL(Run)(OrtSession *, const OrtRunOptions *, const char *const *inputs, const OrtValue *const *values, size_t input_count,
                         const char *const *outputs, size_t output_count, OrtValue **results);
    STAPES_ORT_CALL(CreateSessionOptions)(OrtSessionOptions **);
    STAPES_ORT_UNUSED(11, 16);
    STAPES_ORT_CALL(DisableMemPattern)(OrtSessionOptions *);
    STAPES_ORT_UNUSED(18, 21);
    STAPES_ORT_CALL(SetSessionLogSeverityLevel)(OrtSessionOptions *, int);
    STAPES_ORT_UNUSED(23, 23);
    STAPES_ORT_CALL(SetIntraOpNumThreads)(OrtSessionOptions *, int);
    STAPES_ORT_UNUSED(25, 29);
    STAPES_ORT_CALL(SessionGetInputCount)(const OrtSession *, size_t *);
    STAPES_ORT_CALL(SessionGetOutputCount)(const OrtSession *, size_t *);
    STAPES_ORT_UNUSED(32, 35);
    STAPES_ORT_CALL(SessionGetInputName)(const OrtSession *, size_t, OrtAllocator *, char **);
    STAPES_ORT_CALL(SessionGetOutputName)(const OrtSession *, size_t, OrtAllocator *, char **);
    STAPES_ORT_UNUSED(38, 48);
    STAPES_ORT_CALL(CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo *, void *data, size_t bytes, const int64_t *shape, size_t axes,
                                                    ONNXTensorElementDataType, OrtValue **);
    STAPES_ORT_CALL(IsTensor)(const OrtValue *, int *);
    STAPES_ORT_CALL(GetTensorMutableData)(OrtValue *, void **);
    STAPES_ORT_UNUSED(52, 59);
    STAPES_ORT_CALL(GetTensorElementType)(const OrtTensorTypeAndShapeInfo *, ONNXTensorElementDataType *);
    STAPES_ORT_UNUSED(61, 63);
    STAPES_ORT_CALL(GetTensorShapeElementCount)(const OrtTensorTypeAndShapeInfo *, size_t *);
    STAPES_ORT_CALL(GetTensorTypeAndShape)(const OrtValue *, OrtTensorTypeAndShapeInfo **);
    STAPES_ORT_UNUSED(66, 68);
    STAPES_ORT_CALL(CreateCpuMemoryInfo)(OrtAllocatorType, OrtMemType, OrtMemoryInfo **);
    STAPES_ORT_UNUSED(70, 75);
    STAPES_ORT_CALL(AllocatorFree)(OrtAllocator *, void *);
    STAPES_ORT_UNUSED(77, 77);
    STAPES_ORT_CALL(GetAllocatorWithDefaultOptions)(OrtAllocator **);
    STAPES_ORT_UNUSED(79, 91);
    STAPES_ORT_RELEASE(Env);
    STAPES_ORT_RELEASE(Status);
    STAPES_ORT_RELEASE(MemoryInfo);
    STAPES_ORT_RELEASE(Session);
    STAPES_ORT_RELEASE(Value);
    STAPES_ORT_UNUSED(97, 98);
    STAPES_ORT_RELEASE(TensorTypeAndShapeInfo);
    STAPES_ORT_RELEASE(SessionOptions);
    STAPES_ORT_UNUSED(101, 110);
    STAPES_ORT_CALL(SessionGetModelMetadata)(const OrtSession *, OrtModelMetadata **);
    STAPES_ORT_UNUSED(112, 115);
    STAPES_ORT_CALL(ModelMetadataLookupCustomMetadataMap)(const OrtModelMetadata *, OrtAllocator *, const char *key, char **value);
    STAPES_ORT_UNUSED(117, 117);
    STAPES_ORT_RELEASE(ModelMetadata);
    STAPES_ORT_UNUSED(119, 129);
    STAPES_ORT_CALL(AddSessionConfigEntry)(OrtSessionOptions *, const char *key, const char *value);
} OrtApi;

/* A wrong gap above would move these. */
#define STAPES_ORT_AT(place, name) typedef char stapes_ort_##name[offsetof(OrtApi, name) == (place) * sizeof(void *) ? 1 : -1]
STAPES_ORT_AT(2, GetErrorMessage);
STAPES_ORT_AT(9, Run);
STAPES_ORT_AT(17, DisableMemPattern);
STAPES_ORT_AT(22, SetSessionLogSeverityLevel);
STAPES_ORT_AT(24, SetIntraOpNumThreads);
STAPES_ORT_AT(31, SessionGetOutputCount);
STAPES_ORT_AT(37, SessionGetOutputName);
STAPES_ORT_AT(51, GetTensorMutableData);
STAPES_ORT_AT(60, GetTensorElementType);
STAPES_ORT_AT(65, GetTensorTypeAndShape);
STAPES_ORT_AT(69, CreateCpuMemoryInfo);
STAPES_ORT_AT(76, AllocatorFree);
STAPES_ORT_AT(78, GetAllocatorWithDefaultOptions);
STAPES_ORT_AT(96, ReleaseValue);
STAPES_ORT_AT(100, ReleaseSessionOptions);
STAPES_ORT_AT(111, SessionGetModelMetadata);
STAPES_ORT_AT(116, ModelMetadataLookupCustomMetadataMap);
STAPES_ORT_AT(118, ReleaseModelMetadata);
STAPES_ORT_AT(130, AddSessionConfigEntry);

typedef struct OrtApiBase {
    const OrtApi *(ORT_API_CALL *GetApi)(uint32_t version);
    const char *(ORT_API_CALL *GetVersionString)(void);
} OrtApiBase;

const OrtApiBase *ORT_API_CALL OrtGetApiBase(void);

#ifdef __cplusplus
}
#endif
#endif
