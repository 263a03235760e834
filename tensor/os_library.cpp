// Shared libraries opened while a program runs. By itself, so that the CUDA plug-in, which opens some too, needs no more of this folder.
#include <dlfcn.h>

#include "tensor/os.h"

namespace vg::os {

void* open_library(const std::string& path, std::string* error) {
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library && error) {
    const char* why = ::dlerror();
    *error = why ? why : path + ": cannot be loaded";
  }
  return library;
}

void* find_symbol(void* library, const char* name) { return ::dlsym(library, name); }

}  // namespace vg::os
