// Stands in for CUDA's runtime library and its driver where there is no GPU: memory is the host's, kernels are counted and
// not executed, and every call that matters to recordings is written down. tests/native/test_cuda_graphs.py compiles it.
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAILED 999
#define API __attribute__((visibility("default"))) int

static char written[1 << 20];
static size_t length;
static char failing[64];
static int last_error;
static void* capturing; /* the stream, or null */
static int num_nodes;   /* launched while capturing */
static int num_alive;   /* executable graphs and graphs */

static void note(const char* format, ...) {
  va_list values;
  va_start(values, format);
  length += (size_t)vsnprintf(written + length, sizeof(written) - length, format, values);
  va_end(values);
  length += (size_t)snprintf(written + length, sizeof(written) - length, "\n");
}

/* What has no place while something is recorded. */
static int done(const char* name, int result) {
  if (strcmp(name, failing) == 0) {
    failing[0] = 0;
    result = last_error = FAILED;
  }
  if (result != 0) note("%s failed", name);
  return result;
}
static int forbidden(const char* name) {
  if (capturing != NULL) note("%s while recording", name);
  return done(name, 0);
}

__attribute__((visibility("default"))) const char* stand_in_written(void) {
  written[length] = 0;
  length = 0;
  return written;
}
API stand_in_alive(void) { return num_alive; }
__attribute__((visibility("default"))) void stand_in_fail(const char* name) { strncpy(failing, name, 63); }

/* Recording. */
API cudaStreamCreateWithFlags(void** stream, unsigned flags) {
  static size_t next = 16;
  *stream = (void*)(next += 16);
  note("stream made, flags %u", flags);
  return 0;
}
API cudaStreamCreate(void** stream) { return cudaStreamCreateWithFlags(stream, 0); }
API cudaStreamDestroy(void* stream) {
  note("stream destroyed%s", stream == NULL ? ": the default one" : "");
  return 0;
}
API cudaStreamBeginCapture(void* stream, int mode) {
  note("begin, mode %d%s", mode, stream == NULL ? ", on the default stream" : "");
  if (stream == NULL || capturing != NULL) return FAILED;
  num_nodes = 0;
  const int result = done("cudaStreamBeginCapture", 0);
  if (result == 0) capturing = stream;
  return result;
}
API cudaStreamEndCapture(void* stream, void** graph) {
  const int good = stream == capturing && stream != NULL;
  capturing = NULL;
  const int result = done("cudaStreamEndCapture", good ? 0 : FAILED);
  *graph = NULL;
  if (result == 0) {
    int* nodes = malloc(sizeof(int));
    *nodes = num_nodes;
    *graph = nodes;
    ++num_alive;
  }
  note("end");
  return result;
}
API cudaGraphInstantiate(void** executable, void* graph, unsigned long long flags) {
  const int result = done("cudaGraphInstantiate", 0);
  if (result != 0) return result;
  int* nodes = malloc(sizeof(int));
  *nodes = *(int*)graph;
  *executable = nodes;
  ++num_alive;
  note("graph of %d, flags %llu", *nodes, flags);
  return 0;
}
API cudaGraphLaunch(void* executable, void* stream) {
  note("replay of %d%s", *(int*)executable, stream == NULL ? "" : " on another stream");
  if (capturing != NULL) note("replay while recording");
  return done("cudaGraphLaunch", 0);
}
static int destroy(void* graph) {
  if (graph == NULL) return 0;
  free(graph);
  --num_alive;
  return 0;
}
API cudaGraphDestroy(void* graph) { return destroy(graph); }
API cudaGraphExecDestroy(void* executable) { return destroy(executable); }

/* Kernels. */
struct launch {
  unsigned grid[3], block[3], shared;
  void* stream;
};
API cuLaunchKernelEx(const struct launch* config, void* function, void** arguments, void** extra) {
  (void)function, (void)arguments, (void)extra;
  if (config->stream == capturing && capturing != NULL) {
    ++num_nodes;
  } else {
    note(capturing != NULL ? "launch beside the recording" : "launch");
  }
  return done("cuLaunchKernelEx", 0);
}
API cuModuleLoadData(void** module, const void* image) { return (void)image, *module = module, forbidden("cuModuleLoadData"); }
API cuModuleGetFunction(void** function, void* module, const char* name) { return (void)module, (void)name, *function = function, 0; }
API cuModuleUnload(void* module) { return (void)module, 0; }
API cuFuncSetAttribute(void* function, int attribute, int value) { return (void)function, (void)attribute, (void)value, 0; }
API cuDeviceGetName(char* name, int size, int device) { return (void)device, snprintf(name, (size_t)size, "stand-in"), 0; }
API cuGetErrorName(int error, const char** name) { return (void)error, *name = "STAND_IN", 0; }
API cuGetErrorString(int error, const char** text) { return (void)error, *text = "made to fail", 0; }
API cuTensorMapEncodeTiled(void) { return FAILED; }

/* Memory: the host's, so that copies can be made at once. */
API cudaMalloc(void** data, size_t bytes) {
  note("malloc");
  *data = calloc(1, bytes + 256);
  return forbidden("cudaMalloc");
}
API cudaFree(void* data) {
  note("free");
  free(data);
  return forbidden("cudaFree");
}
API cudaMallocHost(void** data, size_t bytes) { return cudaMalloc(data, bytes); }
API cudaFreeHost(void* data) { return cudaFree(data); }
API cudaMemcpyAsync(void* to, const void* from, size_t bytes, int kind, void* stream) {
  (void)stream;
  memcpy(to, from, bytes);
  note(kind == 1 ? "upload" : kind == 2 ? "download" : "copy");
  return forbidden("cudaMemcpyAsync");
}
API cudaMemcpyPeerAsync(void) { return FAILED; }
API cudaMemGetInfo(size_t* available, size_t* total) { return *available = *total = (size_t)1 << 33, 0; }
API cudaStreamSynchronize(void* stream) { return (void)stream, forbidden("cudaStreamSynchronize"); }

/* The rest of what TVM's runtime is linked with. */
API cudaSetDevice(int device) { return (void)device, 0; }
API cudaGetDevice(int* device) { return *device = 0; }
API cudaGetDeviceCount(int* count) { return *count = 1, 0; }
API cudaDeviceGetAttribute(int* value, int attribute, int device) { return (void)attribute, (void)device, *value = 9, 0; }
API cudaGetDeviceProperties(void* properties, int device) { return (void)properties, (void)device, FAILED; }
API cudaGetLastError(void) {
  const int error = last_error;
  last_error = 0;
  return error;
}
API cudaPeekAtLastError(void) { return last_error; }
__attribute__((visibility("default"))) const char* cudaGetErrorString(int error) { return error ? "made to fail" : "no error"; }
__attribute__((visibility("default"))) const char* cudaGetErrorName(int error) { return error ? "STAND_IN" : "cudaSuccess"; }
API cudaEventCreate(void** event) { return *event = NULL, 0; }
API cudaEventDestroy(void* event) { return (void)event, 0; }
API cudaEventRecord(void* event, void* stream) { return (void)event, (void)stream, 0; }
API cudaEventSynchronize(void* event) { return (void)event, 0; }
API cudaEventElapsedTime(float* time, void* begin, void* end) { return (void)begin, (void)end, *time = 0, 0; }
API cudaStreamWaitEvent(void* stream, void* event, unsigned flags) { return (void)stream, (void)event, (void)flags, 0; }
