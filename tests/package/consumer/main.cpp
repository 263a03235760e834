// Writes a small scan and reads it again, with the installed headers and library alone; a kernel proves that registration survived the archive.
#include <cstdio>

#include "kernels/elementwise.h"
#include "nifti/volume.h"

int main(int, char** argv) {
  vg::Volume made;
  made.voxels = vg::Tensor({1, 2, 3, 4, 1}, vg::DType::f32, vg::kCpu);
  vg::fill(vg::Exec{vg::kCpu}, made.voxels, vg::FillParams{-1});
  if (made.voxels.data<float>()[23] != -1) return 1;
  for (int n = 0; n < 24; ++n) made.voxels.data<float>()[n] = static_cast<float>(n);
  made.place.affine.m[0][0] = -1.5;
  vg::write_volume(argv[1], made);

  const vg::Volume scan = vg::read_volume(argv[1]);
  float sum = 0;
  for (int n = 0; n < 24; ++n) sum += scan.voxels.data<float>()[n];
  std::printf("%ld x %ld x %ld, %s, sum %g\n", static_cast<long>(scan.size()[0]), static_cast<long>(scan.size()[1]), static_cast<long>(scan.size()[2]),
              vg::orientation_of(scan.place.affine).c_str(), static_cast<double>(sum));
}
