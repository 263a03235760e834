/* The C interface from C99: a scan, a file that is not there, a file that is none. */
#include <stdio.h>
#include <string.h>
#include <voxgrad.h>

int main(int count, char** arguments) {
  int64_t size[4];
  double affine[12];
  vg_volume* volume = count > 1 ? vg_open(arguments[1]) : NULL;
  if (!volume) return printf("%s\n", vg_error()), 1;
  if (strlen(vg_error()) != 0) return 2;
  vg_size(volume, size);
  vg_affine(volume, affine);
  printf("%d x %d x %d x %d, %g mm, last %g\n", (int)size[0], (int)size[1], (int)size[2], (int)size[3], affine[0],
         (double)vg_voxels(volume)[size[0] * size[1] * size[2] - 1]);
  if (vg_warning(volume, 1000) != NULL || vg_warning(volume, -1) != NULL) return 3;
  vg_close(volume);
  vg_close(NULL);
  if (vg_open("not/there.nii") != NULL || strstr(vg_error(), "not/there.nii") == NULL) return 4;
  if (vg_open(NULL) != NULL || strlen(vg_error()) == 0) return 5;
  return 0;
}
