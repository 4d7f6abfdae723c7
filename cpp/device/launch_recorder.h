// Recording on devices of our own: launches are remembered, and made again.
//
// Nothing that a driver keeps: what is saved is all that comes before a launch, which is the
// virtual machine, the arguments' way through it, and the search for what they name.
#ifndef CUPOLA_DEVICE_LAUNCH_RECORDER_H_
#define CUPOLA_DEVICE_LAUNCH_RECORDER_H_

#include <functional>
#include <memory>

#include "device/device_plugin.h"
#include "device/recording.h"

namespace cupola {

// A call of a kernel with all its arguments, which it keeps alive. Made with the mutex of the
// device's context held.
using Launch = std::function<void()>;

std::unique_ptr<Recorder> MakeLaunchRecorder(DeviceContext* context);

// Makes the launch, or remembers it if the calling thread records. With the context's mutex held.
void MakeOrRemember(DeviceContext* context, const Launch& launch);
// Throws ffi::Error if the calling thread records: "`doing` cannot be recorded".
void RefuseWhileRecording(const char* doing);
bool IsRecording();

}  // namespace cupola

#endif  // CUPOLA_DEVICE_LAUNCH_RECORDER_H_
