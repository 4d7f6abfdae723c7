// Recording on WebGPU: its dispatches are remembered, and encoded again.
//
// WebGPU has no command buffer that can be submitted twice. What is saved is all that comes before:
// the virtual machine, the arguments' way through it, and the search for what is bound.
#ifndef CUPOLA_DEVICE_WEBGPU_RECORDER_H_
#define CUPOLA_DEVICE_WEBGPU_RECORDER_H_

#include <memory>

#include "device/recording.h"
#include "device/webgpu/commands.h"
#include "device/webgpu/context.h"

namespace cupola::wgpu {

// Throws ffi::Error if there is no such device.
std::unique_ptr<Recorder> MakeRecorder(int device);

// Whether the calling thread records.
bool IsRecording();
// Adds a dispatch to what the calling thread records; with the context's lock held.
void Remember(Context* context, const Dispatch& dispatch);
// Throws ffi::Error if the calling thread records: "`doing` cannot be recorded".
void RefuseWhileRecording(const char* doing);

}  // namespace cupola::wgpu

#endif  // CUPOLA_DEVICE_WEBGPU_RECORDER_H_
