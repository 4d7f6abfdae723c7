#include "device/device_api.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <tvm/ffi/function.h>

#include <iterator>
#include <stdexcept>

namespace cupola {

namespace ffi = tvm::ffi;

namespace {

// The functions of TVM's class in the order of its vtable, behind the two words that every vtable
// begins with and the two destructors. Null: TVM declares the function without defining it.
constexpr const char* kVtable[] = {
    nullptr,  // SetDevice
    nullptr,  // GetAttr
    "_ZN3tvm7runtime9DeviceAPI11GetDataSizeERK8DLTensorNS_3ffi8OptionalINS5_6StringEvEE",
    "_ZN3tvm7runtime9DeviceAPI17GetTargetPropertyE8DLDeviceRKNSt7__cxx1112basic_stringIcSt11char_"
    "traitsIcESaIcEEEPNS_3ffi3AnyE",
    nullptr,  // AllocDataSpace of bytes
    "_ZN3tvm7runtime9DeviceAPI14AllocDataSpaceE8DLDeviceiPKl10DLDataTypeNS_3ffi8OptionalINS6_"
    "6StringEvEE",
    nullptr,  // FreeDataSpace
    "_ZN3tvm7runtime9DeviceAPI14CopyDataFromToEP8DLTensorS3_Pv",
    "_ZN3tvm7runtime9DeviceAPI12CreateStreamE8DLDevice",
    "_ZN3tvm7runtime9DeviceAPI10FreeStreamE8DLDevicePv",
    nullptr,  // StreamSync
    "_ZN3tvm7runtime9DeviceAPI9SetStreamE8DLDevicePv",
    "_ZN3tvm7runtime9DeviceAPI16GetCurrentStreamE8DLDevice",
    "_ZN3tvm7runtime9DeviceAPI16SyncStreamFromToE8DLDevicePvS3_",
    "_ZN3tvm7runtime9DeviceAPI14AllocWorkspaceE8DLDevicem10DLDataType",
    "_ZN3tvm7runtime9DeviceAPI13FreeWorkspaceE8DLDevicePv",
    "_ZN3tvm7runtime9DeviceAPI38SupportsDevicePointerArithmeticsOnHostEv",
    "_ZN3tvm7runtime9DeviceAPI14CopyDataFromToEPKvmPvmm8DLDeviceS5_10DLDataTypeS4_",
};
constexpr size_t kHeader = 4;

void Require(bool condition) {
  if (condition) return;
  throw std::runtime_error(
      "the installed TVM runtime has another interface for devices than the one that Cupola was "
      "built for");
}

}  // namespace

void CheckDeviceAbi() {
  void* runtime = dlopen("libtvm_runtime.so", RTLD_LAZY | RTLD_NOLOAD);
  if (runtime == nullptr) throw std::runtime_error("TVM's runtime library is not loaded");
  auto* vtable = static_cast<void**>(dlsym(runtime, "_ZTVN3tvm7runtime9DeviceAPIE"));
  Require(vtable != nullptr);
  Dl_info info;
  void* extra = nullptr;
  Require(dladdr1(vtable, &info, &extra, RTLD_DL_SYMENT) != 0 && extra != nullptr);
  const size_t words = static_cast<const ElfW(Sym)*>(extra)->st_size / sizeof(void*);
  Require(words == kHeader + std::size(kVtable));
  for (size_t i = 0; i < std::size(kVtable); ++i) {
    const char* name = kVtable[i];
    if (name != nullptr) Require(vtable[kHeader + i] == dlsym(runtime, name));
  }
  dlclose(runtime);  // whoever loaded it still has it
}

const char* DeviceKindName(DLDeviceType type) {
  switch (type) {
    case kDLCPU:
      return "cpu";
    case kDLCUDA:
      return "cuda";
    case kDLOpenCL:
      return "opencl";
    case kDLVulkan:
      return "vulkan";
    case kDLMetal:
      return "metal";
    case kDLROCM:
      return "rocm";
    case kDLWebGPU:
      return "webgpu";
    default:
      throw std::invalid_argument("no kind of device has the number " + std::to_string(type));
  }
}

DeviceApi* DeviceApiOf(DLDevice device) {
  static const bool checked = (CheckDeviceAbi(), true);
  static_cast<void>(checked);
  const std::string kind = DeviceKindName(device.device_type);
  const auto factory = ffi::Function::GetGlobal("device_api." + kind);
  if (!factory.has_value()) {
    throw std::runtime_error("the installed TVM runtime cannot use devices of the kind " + kind);
  }
  return static_cast<DeviceApi*>((*factory)().cast<void*>());
}

}  // namespace cupola
