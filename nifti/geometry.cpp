// Affine algebra, orientation codes and the sform/qform policy. Formulas: the NIfTI-1 standard (nifti1.h, "METHOD 2" and "METHOD 3"); the
// polar decomposition is Higham's Newton iteration, the choice among the transforms is nibabel's with damage named instead of passed on.
#include "nifti/geometry.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/error.h"

namespace vg {
namespace {

double cofactor(const Affine& a, int r, int c) {  // cyclic indices carry the sign
  const int r1 = (r + 1) % 3, r2 = (r + 2) % 3, c1 = (c + 1) % 3, c2 = (c + 2) % 3;
  return a.m[r1][c1] * a.m[r2][c2] - a.m[r1][c2] * a.m[r2][c1];
}

constexpr char kPositive[] = "RAS", kNegative[] = "LPI";

// For each voxel axis the world axis it follows and whether backwards.
struct Directions {
  std::array<int, 3> axis{-1, -1, -1};
  std::array<bool, 3> backwards{};
};
Directions directions_of(const Affine& a) {
  const Affine r = closest_rotation(a);
  std::array<int, 3> order{0, 1, 2};
  auto strength = [&](int c) {
    double best = 0;
    for (int row = 0; row < 3; ++row) best = std::max(best, r.m[row][c] * r.m[row][c]);
    return best;
  };
  std::stable_sort(order.begin(), order.end(), [&](int x, int y) { return strength(x) > strength(y); });
  Directions d;
  std::array<bool, 3> taken{};
  for (int c : order) {
    int best = -1;
    for (int row = 0; row < 3; ++row)
      if (!taken[row] && (best < 0 || std::abs(r.m[row][c]) > std::abs(r.m[best][c]))) best = row;
    taken[best] = true;
    d.axis[c] = best;
    d.backwards[c] = r.m[best][c] < 0;
  }
  return d;
}

}  // namespace

Vec3 Affine::operator()(const Vec3& p) const {
  Vec3 q;
  for (int r = 0; r < 3; ++r) q[r] = m[r][0] * p[0] + m[r][1] * p[1] + m[r][2] * p[2] + m[r][3];
  return q;
}

bool operator==(const Affine& a, const Affine& b) { return std::equal(&a.m[0][0], &a.m[0][0] + 16, &b.m[0][0]); }

Affine operator*(const Affine& a, const Affine& b) {
  Affine p;
  for (int r = 0; r < 4; ++r)
    for (int c = 0; c < 4; ++c) {
      p.m[r][c] = 0;
      for (int t = 0; t < 4; ++t) p.m[r][c] += a.m[r][t] * b.m[t][c];
    }
  return p;
}

double determinant(const Affine& a) {
  return a.m[0][0] * cofactor(a, 0, 0) + a.m[0][1] * cofactor(a, 0, 1) + a.m[0][2] * cofactor(a, 0, 2);
}

bool is_finite(const Affine& a) {
  return std::all_of(&a.m[0][0], &a.m[0][0] + 16, [](double v) { return std::isfinite(v); });
}

bool is_singular(const Affine& a) {
  const Vec3 s = spacing_of(a);
  const double volume = s[0] * s[1] * s[2];
  return !(volume > 0) || !(std::abs(determinant(a)) > 1e-8 * volume);
}

Affine inverse(const Affine& a) {
  if (!is_finite(a) || is_singular(a)) fail(ErrorCode::numeric, "affine cannot be inverted: its determinant is {}", determinant(a));
  const double det = determinant(a);
  Affine inv;
  for (int r = 0; r < 3; ++r)
    for (int c = 0; c < 3; ++c) inv.m[r][c] = cofactor(a, c, r) / det;
  for (int r = 0; r < 3; ++r) inv.m[r][3] = -(inv.m[r][0] * a.m[0][3] + inv.m[r][1] * a.m[1][3] + inv.m[r][2] * a.m[2][3]);
  return inv;
}

Vec3 spacing_of(const Affine& a) {
  Vec3 s;
  for (int c = 0; c < 3; ++c) s[c] = std::sqrt(a.m[0][c] * a.m[0][c] + a.m[1][c] * a.m[1][c] + a.m[2][c] * a.m[2][c]);
  return s;
}

Affine closest_rotation(const Affine& a) {
  Affine x = a;
  const Vec3 s = spacing_of(a);
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 3; ++c) x.m[r][c] /= s[c];
    x.m[r][3] = 0;
  }
  if (is_singular(x) || !is_finite(x)) fail(ErrorCode::numeric, "affine has no orientation: its determinant is {}", determinant(a));
  for (int step = 0; step < 100; ++step) {  // X <- (X + X^-T) / 2 converges quadratically to the orthogonal polar factor
    const double det = determinant(x);
    Affine next;
    double change = 0;
    for (int r = 0; r < 3; ++r)
      for (int c = 0; c < 3; ++c) {
        next.m[r][c] = 0.5 * (x.m[r][c] + cofactor(x, r, c) / det);
        change = std::max(change, std::abs(next.m[r][c] - x.m[r][c]));
      }
    x = next;
    if (change < 1e-15) break;
  }
  return x;
}

double shear_of(const Affine& a) {
  const Vec3 s = spacing_of(a);
  double worst = 0;
  for (int c = 0; c < 3; ++c) {
    const int d = (c + 1) % 3;
    worst = std::max(worst, std::abs(a.m[0][c] * a.m[0][d] + a.m[1][c] * a.m[1][d] + a.m[2][c] * a.m[2][d]) / (s[c] * s[d]));
  }
  return worst;
}

double corner_distance(const Size3& size, const Affine& a, const Affine& b) {
  double worst = 0;
  for (int corner = 0; corner < 8; ++corner) {
    Vec3 p;
    for (int c = 0; c < 3; ++c) p[c] = corner >> c & 1 ? static_cast<double>(size[c] - 1) : 0.0;
    const Vec3 u = a(p), v = b(p);
    worst = std::max(worst, std::hypot(u[0] - v[0], u[1] - v[1], u[2] - v[2]));
  }
  return worst;
}

std::string orientation_of(const Affine& a) {
  if (!is_finite(a) || is_singular(a)) return "???";
  const Directions d = directions_of(a);
  std::string code;
  for (int c = 0; c < 3; ++c) code += d.backwards[c] ? kNegative[d.axis[c]] : kPositive[d.axis[c]];
  return code;
}

AxisOrder order_towards(const Affine& a, const std::string& code) {
  const Directions d = directions_of(a);
  AxisOrder order;
  std::array<bool, 3> seen{};
  require(code.size() == 3, "orientation \"{}\": wanted three letters such as RAS or LIA", code);
  for (int n = 0; n < 3; ++n) {
    int world = -1;
    bool backwards = false;
    for (int w = 0; w < 3; ++w)
      if (code[n] == kPositive[w] || code[n] == kNegative[w]) world = w, backwards = code[n] == kNegative[w];
    require(world >= 0 && !seen[world], "orientation \"{}\": wanted one of R/L, one of A/P and one of S/I", code);
    seen[world] = true;
    for (int c = 0; c < 3; ++c)
      if (d.axis[c] == world) order.from[n] = c, order.flip[n] = d.backwards[c] != backwards;
  }
  return order;
}

Grid reorient(const Grid& grid, const AxisOrder& order) {
  Grid out;
  for (int r = 0; r < 3; ++r) out.affine.m[r][3] = grid.affine.m[r][3];
  for (int n = 0; n < 3; ++n) {
    const int c = order.from[n];
    out.size[n] = grid.size[c];
    for (int r = 0; r < 3; ++r) {
      out.affine.m[r][n] = order.flip[n] ? -grid.affine.m[r][c] : grid.affine.m[r][c];
      if (order.flip[n]) out.affine.m[r][3] += grid.affine.m[r][c] * static_cast<double>(grid.size[c] - 1);
    }
  }
  return out;
}

// ---- qform
// ---------------------------------------------------------------------------------------------------------------------------------

Affine from_qform(const QForm& q) {
  const auto [b, c, d] = q.bcd;
  const double rest = 1.0 - (b * b + c * c + d * d);
  constexpr double kRounding = 3.0 * std::numeric_limits<float>::epsilon();  // nibabel's threshold for quaternions stored as floats
  if (!(rest > -kRounding)) fail(ErrorCode::numeric, "quaternion ({}, {}, {}) is longer than 1", b, c, d);
  const double a = rest < kRounding ? 0.0 : std::sqrt(rest);
  const double n = 2.0 / (a * a + b * b + c * c + d * d);
  const double rotation[3][3] = {{1 - n * (c * c + d * d), n * (b * c - a * d), n * (b * d + a * c)},
                                 {n * (b * c + a * d), 1 - n * (b * b + d * d), n * (c * d - a * b)},
                                 {n * (b * d - a * c), n * (c * d + a * b), 1 - n * (b * b + c * c)}};
  Affine out;
  for (int r = 0; r < 3; ++r) {
    for (int col = 0; col < 3; ++col) out.m[r][col] = rotation[r][col] * q.spacing[col] * (col == 2 ? q.qfac : 1.0);
    out.m[r][3] = q.offset[r];
  }
  return out;
}

QForm to_qform(const Affine& affine) {
  QForm q;
  q.spacing = spacing_of(affine);
  q.offset = {affine.m[0][3], affine.m[1][3], affine.m[2][3]};
  Affine r = closest_rotation(affine);
  if (determinant(r) < 0) {
    q.qfac = -1;
    for (auto& row : r.m) row[2] = -row[2];
  }
  // Four ways to write the same quaternion; the largest of the four components gives the one without cancellation.
  const double xx = r.m[0][0], yy = r.m[1][1], zz = r.m[2][2];
  const double squares[4] = {1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz};  // 4a^2, 4b^2, 4c^2, 4d^2
  const int big = static_cast<int>(std::max_element(squares, squares + 4) - squares);
  const double root = 0.5 * std::sqrt(squares[big]), f = 0.25 / root;
  const double za = r.m[2][1] - r.m[1][2], zb = r.m[0][2] - r.m[2][0], zc = r.m[1][0] - r.m[0][1];  // 4ab, 4ac, 4ad
  const double bc = r.m[0][1] + r.m[1][0], bd = r.m[0][2] + r.m[2][0], cd = r.m[1][2] + r.m[2][1];  // 4bc, 4bd, 4cd
  double a = 0;
  switch (big) {
    case 0: a = root, q.bcd = {za * f, zb * f, zc * f}; break;
    case 1: a = za * f, q.bcd = {root, bc * f, bd * f}; break;
    case 2: a = zb * f, q.bcd = {bc * f, root, cd * f}; break;
    default: a = zc * f, q.bcd = {bd * f, cd * f, root}; break;
  }
  if (a < 0)
    for (double& v : q.bcd) v = -v;
  return q;
}

// ---- one transform out of two
// --------------------------------------------------------------------------------------------------------------

const char* name_of(TransformSource s) {
  constexpr const char* names[] = {"none", "qform", "sform", "directions"};
  return names[static_cast<int>(s)];
}

const char* transform_code_name(int code) {
  constexpr const char* names[] = {"unknown", "scanner", "aligned", "talairach", "mni", "template"};
  return names[code >= 1 && code <= 5 ? code : 0];
}

namespace {

struct Candidate {
  Affine affine;
  int code = 0;
  std::string defect;  // "" when usable
};

Candidate sform_of(const StoredTransforms& s) {
  Candidate out{{}, s.sform_code, ""};
  for (int r = 0; r < 3; ++r) std::copy(s.srow[r], s.srow[r] + 4, out.affine.m[r]);
  if (!is_finite(out.affine)) {
    out.defect = "holds NaN or infinity";
  } else if (is_singular(out.affine)) {
    out.defect = fmt::format("is singular (determinant {})", determinant(out.affine));
  }
  return out;
}

Candidate qform_of(const StoredTransforms& s, const Vec3& spacing, double qfac) {
  Candidate out{{}, s.qform_code, ""};
  const QForm q{s.bcd, s.offset, spacing, qfac};
  const Vec3* parts[] = {&q.bcd, &q.offset, &q.spacing};
  for (const Vec3* v : parts)
    for (double x : *v)
      if (!std::isfinite(x)) out.defect = "holds NaN or infinity";
  if (!out.defect.empty()) return out;
  try {
    out.affine = from_qform(q);
    if (is_singular(out.affine)) out.defect = fmt::format("is singular (spacing {}, {}, {} mm)", spacing[0], spacing[1], spacing[2]);
  } catch (const Error& e) {
    out.defect = fmt::format("is no rotation: {}", e.what());
  }
  return out;
}

void warn_of_shear(const Affine& affine, Warnings& warnings) {
  const double shear = shear_of(affine);
  if (shear > 1e-3) warnings.push_back({"sheared", fmt::format("axes are not perpendicular (largest cosine {:.2g})", shear)});
}

// Two conventions for left and right in one header: the transform that is taken, and one that disagrees about the handedness of the voxels. A qform
// whose code is 0 counts where its quaternion was filled in all the same: programs that flip an image often forget one of the two.
void warn_of_sides(const StoredTransforms& stored, const Candidate& sform, const Candidate* qform, const Vec3& spacing, double qfac, Warnings& warnings) {
  Candidate other;
  const bool dormant = !qform && (stored.bcd[0] != 0 || stored.bcd[1] != 0 || stored.bcd[2] != 0);
  if (qform) other = *qform;
  else if (dormant) other = qform_of(stored, spacing, qfac);
  if ((!qform && !dormant) || !other.defect.empty() || (determinant(sform.affine) < 0) == (determinant(other.affine) < 0)) return;
  warnings.push_back({"left_right_conflict", fmt::format("the sform says {}, the qform{} says {}, a mirror image: left and right may be exchanged; the sform is used",
                                                         orientation_of(sform.affine), dormant ? " (its code is 0)" : "", orientation_of(other.affine))});
}

}  // namespace

Placement place(const StoredTransforms& stored, const Size3& size, const std::string& name, Warnings& warnings) {
  auto warn = [&](const char* id, std::string text) { warnings.push_back({id, std::move(text)}); };
  auto valid_code = [&](const char* which, int code) {
    if (code >= 0 && code <= 5) return code;
    warn("bad_transform_code", fmt::format("{}_code = {} is outside 0..5: taken as 0", which, code));
    return 0;
  };
  const int sform_code = valid_code("sform", stored.sform_code), qform_code = valid_code("qform", stored.qform_code);

  double qfac = stored.pixdim[0];
  if (qfac != 1 && qfac != -1) {
    if (qform_code > 0) warn("bad_qfac", fmt::format("pixdim[0] = {} is neither 1 nor -1: taken as 1", qfac));
    qfac = 1;
  }
  Vec3 spacing{};
  bool spacing_known = true;
  for (int c = 0; c < 3; ++c) {
    const double v = stored.pixdim[c + 1];
    spacing[c] = v == 0 ? 1.0 : std::abs(v);
    if (!(v > 0) || std::isinf(v))
      warn("bad_spacing",
           fmt::format("pixdim[{}] = {} mm: {}", c + 1, v, std::isfinite(v) ? fmt::format("taken as {}", spacing[c]) : "unusable"));
    if (!std::isfinite(v)) spacing_known = false;
  }

  Candidate sform, qform;
  if (sform_code > 0) sform = sform_of(stored);
  if (qform_code > 0) qform = qform_of(stored, spacing, qfac);
  const bool sform_ok = sform_code > 0 && sform.defect.empty(), qform_ok = qform_code > 0 && qform.defect.empty();
  if (sform_code > 0 && !sform_ok) warn("bad_sform", fmt::format("the sform (code {}) {}: not used", sform_code, sform.defect));
  if (qform_code > 0 && !qform_ok) warn("bad_qform", fmt::format("the qform (code {}) {}: not used", qform_code, qform.defect));
  if ((sform_code > 0 || qform_code > 0) && !sform_ok && !qform_ok)
    fail(ErrorCode::bad_file, "{}: no usable transform: {} {} (wanted an sform or a qform that can be inverted)", name,
         sform_code > 0 ? "sform" : "qform", sform_code > 0 ? sform.defect : qform.defect);

  Placement out;
  if (sform_ok) {
    out = {sform.affine, TransformSource::sform, sform_code};
    if (qform_ok) {
      const double mm = corner_distance(size, sform.affine, qform.affine);
      const bool mirrored = (determinant(sform.affine) < 0) != (determinant(qform.affine) < 0);
      if (mm > 1.0)
        warn("sform_qform_differ",
             fmt::format("sform ({}) and qform ({}) differ by up to {:.3g} mm{}: the sform is used", orientation_of(sform.affine),
                         orientation_of(qform.affine), mm, mirrored ? " and are mirror images (left and right!)" : ""));
    }
    warn_of_sides(stored, sform, qform_ok ? &qform : nullptr, spacing, qfac, warnings);
  } else if (qform_ok) {
    out = {qform.affine, TransformSource::qform, qform_code};
  } else {
    if (!spacing_known) fail(ErrorCode::bad_file, "{}: pixdim holds NaN or infinity and neither sform nor qform is given", name);
    return place_nowhere(spacing, size, name, "neither sform nor qform is given", warnings);
  }
  warn_of_shear(out.affine, warnings);
  return out;
}

Placement place_nowhere(const Vec3& spacing, const Size3& size, const std::string& name, const std::string& why, Warnings& warnings) {
  Placement out;
  for (int c = 0; c < 3; ++c) {
    out.affine.m[c][c] = c == 0 ? -spacing[c] : spacing[c];
    out.affine.m[c][3] = -out.affine.m[c][c] * static_cast<double>(size[c] - 1) / 2.0;
  }
  if (!is_finite(out.affine) || is_singular(out.affine))
    fail(ErrorCode::bad_file, "{}: a voxel of {} x {} x {} mm (wanted sizes to compute with)", name, spacing[0], spacing[1], spacing[2]);
  warnings.push_back({"no_orientation", why + ": left and right are a guess (i is taken to run to the left)"});
  return out;
}

Placement place_by_directions(const Affine& affine, const std::string& name, Warnings& warnings) {
  if (!is_finite(affine)) fail(ErrorCode::bad_file, "{}: directions, spacing or origin hold NaN or infinity (wanted finite numbers)", name);
  if (is_singular(affine))
    fail(ErrorCode::bad_file, "{}: the directions are singular (determinant {}; wanted three independent axes)", name, determinant(affine));
  warn_of_shear(affine, warnings);
  constexpr int kScanner = 1;
  return {affine, TransformSource::directions, kScanner};
}

}  // namespace vg
