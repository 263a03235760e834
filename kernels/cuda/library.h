// Shared libraries that the plug-in uses where they are installed (cuDNN, cuBLASLt): found, opened and checked at run time, so that a GPU without
// them still works with our own kernels.
#pragma once
#include <string>
#include <vector>

namespace vg::gpu {

struct LibraryName {
  std::string title;         // "cuDNN 9"
  std::string file;          // "libcudnn.so.9"
  std::string variable;      // environment: a folder that is searched first, and alone if it is set
  std::vector<std::string> wheels;  // folders below python's site-packages/nvidia: "cudnn", "cu13"
};

// Where it may be: the variable's folder; else the loader's own path (""), then the site-packages of VIRTUAL_ENV, CONDA_PREFIX, the user and the system.
std::vector<std::string> library_folders(const LibraryName& name);

struct Symbol {
  const char* name;
  void** to;
};

// Opens the first that there is and fills the table; "" on success. Otherwise why not: who was looked for, where, and what the loader or a missing
// function said. `handle` and `path` receive what was opened.
std::string open_library(const LibraryName& name, const std::vector<Symbol>& symbols, void** handle, std::string* path);

}  // namespace vg::gpu
