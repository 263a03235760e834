// The search for libraries, and the filling of their tables.
#include "kernels/cuda/library.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "tensor/os.h"

namespace vg::gpu {
namespace {

namespace fs = std::filesystem;

std::string environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value ? value : "";
}

// PREFIX/lib/python3.*/{site,dist}-packages/nvidia/WHEEL/lib, newest python first.
void add_python(std::vector<std::string>& folders, const fs::path& prefix, const std::vector<std::string>& wheels) {
  std::error_code ignored;
  std::vector<fs::path> pythons;
  for (const auto& entry : fs::directory_iterator(prefix / "lib", ignored))
    if (entry.path().filename().string().starts_with("python3")) pythons.push_back(entry.path());
  std::sort(pythons.rbegin(), pythons.rend());
  for (const fs::path& python : pythons)
    for (const char* packages : {"site-packages", "dist-packages"})
      for (const std::string& wheel : wheels)
        if (const fs::path folder = python / packages / "nvidia" / wheel / "lib"; fs::is_directory(folder, ignored)) folders.push_back(folder);
}

}  // namespace

std::vector<std::string> library_folders(const LibraryName& name) {
  if (const std::string folder = environment(name.variable); !folder.empty()) return {folder};
  std::vector<std::string> folders = {""};
  for (const char* variable : {"VIRTUAL_ENV", "CONDA_PREFIX"})
    if (const std::string prefix = environment(variable); !prefix.empty()) add_python(folders, prefix, name.wheels);
  if (const std::string home = environment("HOME"); !home.empty()) add_python(folders, fs::path(home) / ".local", name.wheels);
  for (const char* prefix : {"/usr/local", "/usr"}) add_python(folders, prefix, name.wheels);
  return folders;
}

std::string open_library(const LibraryName& name, const std::vector<Symbol>& symbols, void** handle, std::string* path) {
  std::string reasons;
  for (const std::string& folder : library_folders(name)) {
    *path = folder.empty() ? name.file : folder + "/" + name.file;
    std::string why;
    *handle = os::open_library(*path, &why);
    for (const Symbol& s : symbols) {
      if (!*handle) break;
      *s.to = os::find_symbol(*handle, s.name);
      if (!*s.to) why = *path + ": it has no " + s.name, *handle = nullptr;
    }
    if (*handle) return "";
    reasons += (reasons.empty() ? "" : "; ") + why;
  }
  return "no " + name.title + ": " + reasons;
}

}  // namespace vg::gpu
