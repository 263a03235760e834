// The C interface over Volume: exceptions end here, as a text that vg_error() returns.
#include "nifti/voxgrad.h"

#include <exception>
#include <string>
#include <vector>

#include "nifti/volume.h"

struct vg_volume {
  vg::Volume volume;
  std::vector<std::string> warnings;
};

namespace {

thread_local std::string last_error;

}  // namespace

#define VG_C_API extern "C" __attribute__((visibility("default")))

VG_C_API vg_volume* vg_open(const char* path) {
  try {
    last_error.clear();
    if (!path) throw std::invalid_argument("vg_open: no path");
    auto out = std::make_unique<vg_volume>();
    out->volume = vg::read_volume(path);
    for (const vg::Warning& w : out->volume.warnings) out->warnings.push_back(w.name + ": " + w.text);
    return out.release();
  } catch (const std::exception& e) {
    try {
      last_error = e.what();
    } catch (...) {  // no memory for the reason: none is left
    }
  } catch (...) {
  }
  return nullptr;
}

VG_C_API void vg_close(vg_volume* volume) { delete volume; }

VG_C_API const char* vg_error(void) { return last_error.c_str(); }

VG_C_API void vg_size(const vg_volume* volume, int64_t size[4]) {
  const vg::Size3 s = volume->volume.size();
  for (std::size_t a = 0; a < 3; ++a) size[a] = s[a];
  size[3] = volume->volume.channels();
}

VG_C_API void vg_affine(const vg_volume* volume, double rows[12]) {
  for (int n = 0; n < 12; ++n) rows[n] = volume->volume.place.affine.m[n / 4][n % 4];
}

VG_C_API const float* vg_voxels(const vg_volume* volume) { return volume->volume.voxels.data<float>(); }

VG_C_API const char* vg_warning(const vg_volume* volume, int n) {
  return n >= 0 && static_cast<std::size_t>(n) < volume->warnings.size() ? volume->warnings[static_cast<std::size_t>(n)].c_str() : nullptr;
}
