// Where a voxel is in the patient: affine algebra in double precision, orientation codes, and the rules by which a header's two transforms
// (sform, qform) become one. World coordinates are RAS millimetres: +x to the patient's right, +y anterior, +z superior.
#pragma once
#include <array>
#include <cstdint>
#include <string>

#include "nifti/warning.h"

namespace vg {

using Vec3 = std::array<double, 3>;
using Size3 = std::array<std::int64_t, 3>;

// 4 x 4, row-major; maps a voxel (i, j, k) to RAS mm. Default: identity.
struct Affine {
  double m[4][4] = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}};

  Vec3 operator()(const Vec3& p) const;
  friend bool operator==(const Affine& a, const Affine& b);
};
Affine operator*(const Affine& a, const Affine& b);  // (a * b)(p) = a(b(p))
Affine inverse(const Affine& a);                     // throws numeric if singular
double determinant(const Affine& a);                 // of the 3 x 3 part: mm^3 per voxel, negative for a mirrored (radiological) order
bool is_finite(const Affine& a);
bool is_singular(const Affine& a);  // |det| below 1e-8 of the product of the column lengths, or a column of zeros
// Lengths of the columns: distance in mm between neighbours along i, j, k.
Vec3 spacing_of(const Affine& a);
// The 3 x 3 rotation (or rotoinversion) nearest to the columns' directions: polar decomposition. Translation 0.
Affine closest_rotation(const Affine& a);
// 0 for perpendicular axes; the largest |cosine| between two axes otherwise.
double shear_of(const Affine& a);

// A box of voxels and its place.
struct Grid {
  Size3 size{};  // extents along i, j, k
  Affine affine;

  std::int64_t voxels() const { return size[0] * size[1] * size[2]; }
  // (size / 2): FreeSurfer's centre, a corner of the middle voxel where the extent is even, its centre where odd minus one half.
  Vec3 centre() const { return affine({size[0] / 2.0, size[1] / 2.0, size[2] / 2.0}); }
  friend bool operator==(const Grid& a, const Grid& b) { return a.size == b.size && a.affine == b.affine; }
};
// Largest distance in mm between the places that two affines give to the corners of a box.
double corner_distance(const Size3& size, const Affine& a, const Affine& b);

// Directions in which i, j, k grow, for example "LIA": i to the left, j inferior, k anterior. The axis with the clearest direction is named
// first, as nibabel.io_orientation does. Singular affines give "???".
std::string orientation_of(const Affine& a);

// New axis a is old axis from[a], run backwards where flip[a].
struct AxisOrder {
  std::array<int, 3> from{0, 1, 2};
  std::array<bool, 3> flip{};
  bool is_identity() const { return from == std::array<int, 3>{0, 1, 2} && !flip[0] && !flip[1] && !flip[2]; }
};
// How to reach `code` ("RAS", "LIA", ...) by permuting and flipping alone. Throws invalid_argument for codes that are not three letters
// of three different axes, numeric for a singular affine.
AxisOrder order_towards(const Affine& a, const std::string& code);
Grid reorient(const Grid& grid, const AxisOrder& order);

// ---- the two transforms of a NIfTI header
// --------------------------------------------------------------------------------------------------

// Rotation as the vector part (b, c, d) of a unit quaternion whose scalar part a >= 0; qfac = -1 flips k.
struct QForm {
  Vec3 bcd{}, offset{}, spacing{1, 1, 1};
  double qfac = 1;
};
Affine from_qform(const QForm& q);  // throws numeric if b^2 + c^2 + d^2 > 1 beyond float rounding
QForm to_qform(const Affine& a);    // of the closest rotation: shear is dropped

// none: centred box, i to the left, made up by convention; directions: the only transform of an MGH or NRRD file.
enum class TransformSource { none, qform, sform, directions };
const char* name_of(TransformSource s);
const char* transform_code_name(int code);  // 1 "scanner", 2 "aligned", 3 "talairach", 4 "mni", 5 "template", else "unknown"

// What a header says about place, as stored.
struct StoredTransforms {
  int sform_code = 0, qform_code = 0;
  double srow[3][4] = {};
  Vec3 bcd{}, offset{};
  std::array<double, 4> pixdim{1, 1, 1, 1};  // qfac, then mm along i, j, k
};
struct Placement {
  Affine affine;
  TransformSource source = TransformSource::none;
  int code = 0;  // 1..5, of the transform that was taken; 0 for none
};
// The sform if its code is valid and it can be inverted, else the qform, else a centred box with x flipped (as nibabel). Repairs and
// doubts become warnings: bad_transform_code, bad_qfac, bad_spacing, bad_sform, bad_qform, sform_qform_differ, sheared, no_orientation.
// Throws bad_file ("NAME: ...") where the only transform given is unusable.
Placement place(const StoredTransforms& stored, const Size3& size, const std::string& name, Warnings& warnings);
// A centred box with i to the left, and the warning no_orientation ("WHY: left and right are a guess ..."). Throws bad_file for spacings of
// which a voxel's volume overflows or vanishes.
Placement place_nowhere(const Vec3& spacing, const Size3& size, const std::string& name, const std::string& why, Warnings& warnings);
// The transform of formats that have one alone. Throws bad_file where it cannot be inverted; warning sheared.
Placement place_by_directions(const Affine& affine, const std::string& name, Warnings& warnings);

}  // namespace vg
