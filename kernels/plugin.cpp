// Loads libvoxgrad_cuda.so on the first use of a CUDA device: from VG_PLUGIN_DIR, else beside the program, else by the loader's own search. Programs
// that stay on the cpu never open it, so they start in milliseconds and need no CUDA library. VG_CUDA_PLUGIN names another file: tests put a plug-in
// there that stands on a fake CUDA runtime.
#include <fmt/format.h>

#include <filesystem>

#include "kernels/kernel.h"
#include "tensor/os.h"

namespace vg {
namespace {

constexpr const char* kPluginFile = "libvoxgrad_cuda.so";

// Null where there is no such file; throws where there is one that cannot be loaded.
void* open_plugin(std::string* searched) {
  if (const std::string path = os::environment("VG_CUDA_PLUGIN"); !path.empty()) {
    std::string error;
    if (void* library = os::open_library(path, &error)) return library;
    fail(ErrorCode::no_device, "VG_CUDA_PLUGIN: {}", error);
  }
  std::vector<std::string> folders;
  if (const std::string folder = os::environment("VG_PLUGIN_DIR"); !folder.empty()) folders.push_back(folder);
  const std::string home = os::executable_folder();
  folders.insert(folders.end(), {home, home + "/../lib"});
  for (const std::string& folder : folders) {
    const std::string path = folder + "/" + kPluginFile;
    *searched += (searched->empty() ? "" : ", ") + folder;
    if (!std::filesystem::exists(path)) continue;
    std::string error;
    if (void* library = os::open_library(path, &error)) return library;
    fail(ErrorCode::no_device, "the CUDA plug-in cannot be loaded: {}", error);
  }
  std::string error;
  return os::open_library(kPluginFile, &error);  // the system's own search path
}

void load_cuda() {
  std::string searched;
  void* library = open_plugin(&searched);
  if (!library) fail(ErrorCode::no_device, "no CUDA device: this build has no {} (not in {})", kPluginFile, searched);
  const auto entry = reinterpret_cast<const Plugin* (*)(int)>(os::find_symbol(library, "vg_plugin"));
  const Plugin* plugin = entry ? entry(kPluginAbi) : nullptr;
  if (!plugin || std::string(plugin->version) != VG_VERSION || plugin->tensor_bytes != sizeof(Tensor) || plugin->exec_bytes != sizeof(Exec))
    fail(ErrorCode::no_device, "{}: built from another version of voxgrad (this program is {})", kPluginFile, VG_VERSION);
  int devices = 0;
  if (const char* message = plugin->api->count(&devices)) fail(ErrorCode::no_device, "no CUDA device: {}", message);
  if (devices == 0) fail(ErrorCode::no_device, "no CUDA device: the driver reports none");
  install_kernels(plugin->kernels, DeviceKind::cuda);
  install_device_api(DeviceKind::cuda, plugin->api);
}

[[maybe_unused]] const bool hooked = (set_device_loader(DeviceKind::cuda, &load_cuda), true);

}  // namespace
}  // namespace vg
