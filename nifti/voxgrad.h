// The C interface (C99): a scan of any format that voxgrad reads, as floats with their place in the patient. Link libvoxgrad_c.so
// (find_package(voxgrad), target voxgrad::c). Functions may be called from several threads; one volume is one thread's at a time.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vg_volume vg_volume;

/* NIfTI, MGH, NRRD, PNG, DICOM; "bold.nii.gz,3" is volume 3 of a series. NULL where the file cannot be read: vg_error() says why. */
vg_volume* vg_open(const char* path);
void vg_close(vg_volume* volume); /* NULL is allowed */

/* Why this thread's last vg_open failed: file, what was, what was wanted. "" if it did not. Valid until the thread's next vg_open. */
const char* vg_error(void);

/* Extents along i, j, k and the number of channels (volumes of a series). */
void vg_size(const vg_volume* volume, int64_t size[4]);
/* Three rows of four: (i, j, k, 1) -> x to the right, y anterior, z superior, in mm. */
void vg_affine(const vg_volume* volume, double rows[12]);
/* Voxel (i, j, k) of channel c is voxels[((k * size[1] + j) * size[0] + i) * size[3] + c]. Valid until vg_close. */
const float* vg_voxels(const vg_volume* volume);

/* What was odd about the file: the n-th remark from 0, NULL after the last. */
const char* vg_warning(const vg_volume* volume, int n);

#ifdef __cplusplus
}
#endif
