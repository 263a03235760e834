// Shapes of the synthetic head and how they vary between subjects. Sizes follow an average adult: cerebrum 136 x 172 x 94 mm, cortex 2.8
// mm, sulci every 12 mm, thalamus 7 ml, caudate 4, putamen 5, pallidum 1.7, hippocampus 4, amygdala 2.4. Distances to ellipsoids are
// first-order estimates (f / |grad f|), good near the surface, which is where soft edges and shells are drawn.
#include "train/phantom_anatomy.h"

#include <algorithm>
#include <cmath>

#include "tensor/random.h"

namespace vg::phantom {
namespace {

constexpr float kPi = 3.14159265358979f;
constexpr float kFoldRadius = 68;  // mm: radius of the sphere on which the folding pattern is drawn

Point operator+(Point a, Point b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
Point operator-(Point a, Point b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
Point operator*(Point a, float s) { return {a.x * s, a.y * s, a.z * s}; }
float dot(Point a, Point b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
float length(Point a) { return std::sqrt(dot(a, a)); }

// Union whose seam is rounded over about k mm (polynomial smooth minimum), and the intersection of the same kind.
float smooth_min(float a, float b, float k) {
  const float h = std::max(k - std::fabs(a - b), 0.0f) / k;
  return std::min(a, b) - 0.25f * h * h * k;
}
float smooth_max(float a, float b, float k) { return -smooth_min(-a, -b, k); }

// sin and cos by a Taylor polynomial on [-pi/4, pi/4] after reduction: the same on every C library, and cheaper. Error < 4e-7 for |x| <
// 1e3.
void sin_cos(float x, float& s, float& c) {
  const float turns = x * (2 / kPi);
  const int n = static_cast<int>(turns + (turns < 0 ? -0.5f : 0.5f));
  const float r = (x - static_cast<float>(n) * 1.5707963f) - static_cast<float>(n) * 2.67949e-8f, r2 = r * r;
  const float sine = r * (1 + r2 * (-1.0f / 6 + r2 * (1.0f / 120 - r2 * (1.0f / 5040))));
  const float cosine = 1 + r2 * (-0.5f + r2 * (1.0f / 24 + r2 * (-1.0f / 720 + r2 * (1.0f / 40320))));
  const float a = n & 1 ? cosine : sine, b = n & 1 ? sine : cosine;
  s = n & 2 ? -a : a;
  c = (n + 1) & 2 ? -b : b;
}

// Angle of (x, y) in the first quadrant, error < 0.004 rad.
float quadrant_angle(float y, float x) {
  const float low = std::min(x, y), high = std::max(x, y), r = low / (high + 1e-12f), angle = r * (kPi / 4 + 0.273f * (1 - r));
  return y > x ? kPi / 2 - angle : angle;
}

float ellipsoid_distance(Point p, Point radii) {
  const Point a{p.x / radii.x, p.y / radii.y, p.z / radii.z}, b{a.x / radii.x, a.y / radii.y, a.z / radii.z};
  const float f = length(a), g = length(b);
  return g > 0 ? f * (f - 1) / g : -std::min({radii.x, radii.y, radii.z});
}

float chain_distance(const std::vector<Cone>& chain, Point p, float k) {
  float d = 1e9f;
  for (const Cone& c : chain) d = smooth_min(d, distance(c, p), k);
  return d;
}

// Random sizes of one structure: a factor common to both sides, a small one of its own, and a shift of its centre.
class Variation {
 public:
  explicit Variation(Random& random) : random_(random) {}
  float bounded() { return std::clamp(random_.normal(), -2.0f, 2.0f); }
  Point shift(float mm) {
    const float x = bounded(), y = bounded(), z = bounded();
    return Point{x, y, z} * mm;
  }
  // Rotation about z by `yaw` turns a nucleus's long axis away from the midline towards the back; about x by `pitch` lowers its front.
  Ellipsoid ellipsoid(Point centre, Point radii, float yaw, float pitch, float scale, float reach = 3) {
    const float sy = std::sin(yaw), cy = std::cos(yaw), sp = std::sin(pitch), cp = std::cos(pitch);
    const Point r = radii * scale;
    const float far = std::max({r.x, r.y, r.z}) + reach;
    return {centre, r, {{cy, sy, 0}, {-sy * cp, cy * cp, sp}, {sy * sp, -cy * sp, cp}}, far * far};
  }

 private:
  Random& random_;
};

Cone cone(Point a, Point b, float ra, float rb) { return {a, b - a, 1 / dot(b - a, b - a), ra, rb}; }

struct Knot {
  Point at;
  float radius;
};
std::vector<Cone> chain(std::initializer_list<Knot> knots, Point shift, float scale) {
  std::vector<Cone> cones;
  const Knot* last = nullptr;
  for (const Knot& knot : knots) {
    if (last) cones.push_back(cone(last->at + shift, knot.at + shift, last->radius * scale, knot.radius * scale));
    last = &knot;
  }
  return cones;
}

}  // namespace

float distance(const Ellipsoid& e, Point p) {
  const Point d = p - e.centre;
  const auto along = [&](int i) { return d.x * e.axis[i][0] + d.y * e.axis[i][1] + d.z * e.axis[i][2]; };
  return ellipsoid_distance({along(0), along(1), along(2)}, e.radii);
}

float distance(const Cone& c, Point p) {
  const Point d = p - c.a;
  const float t = std::clamp(dot(d, c.along) * c.inverse_length2, 0.0f, 1.0f);
  return length(d - c.along * t) - (c.ra + t * (c.rb - c.ra));
}

// Layers painted in order: each covers the share of the voxel that lies inside its surface.
struct Head::Mix {
  const std::array<float, kTissues>& intensity;
  float inverse_voxel, value;
  int label = 0;

  void paint(float d, Tissue tissue, int id) {
    const float share = std::clamp(0.5f - d * inverse_voxel, 0.0f, 1.0f);
    value += share * (intensity[tissue] - value);
    if (d < 0) label = id;
  }
};

Head::Head(std::uint64_t seed, int subject, float voxel, const std::array<float, kTissues>& intensity)
    : voxel_(voxel), intensity_(intensity) {
  Random sizes(seed, stream_of(subject, kSizes)), folds(seed, stream_of(subject, kFolds));
  Variation vary(sizes);
  const float atrophy = std::clamp(0.5f + 0.25f * sizes.normal(), 0.0f, 1.0f);  // wide sulci and wide ventricles come together
  thickness_ = std::max(2.8f - 0.3f * atrophy, 1.35f * voxel);
  sulcus_ = std::max(0.5f + 0.5f * atrophy, 0.45f * voxel);  // half the width of a sulcus
  sulcus_depth_ = 19;
  gap_ = std::max(1.4f + 1.4f * atrophy, 1.2f * voxel);  // CSF between brain and skull
  const float period = std::max(11.5f, 2 * (sulcus_ + thickness_) + 1.7f * voxel);
  fold_k_ = kPi / period;  // sulci are the zeros of the pattern: two in a wavelength

  for (int i = 0; i < 8; ++i) {  // plane waves of one wavelength and all directions, read on a sphere: a labyrinth of even spacing
    const float u = folds.uniform(-1, 1), angle = folds.uniform(0, 2 * kPi), r = std::sqrt(1 - u * u);
    folds_.push_back(
        {Point{r * std::cos(angle), r * std::sin(angle), u} * (fold_k_ * folds.uniform(0.95f, 1.15f)), folds.uniform(0, 2 * kPi), 1});
  }
  for (int i = 0; i < 4; ++i) {
    const float u = folds.uniform(-1, 1), angle = folds.uniform(0, 2 * kPi), r = std::sqrt(1 - u * u);
    depths_.push_back({Point{r * std::cos(angle), r * std::sin(angle), u} * (0.45f * fold_k_), folds.uniform(0, 2 * kPi), 0.18f});
  }
  for (Wave& w : wobble_) {
    const float yz = folds.uniform(0, 2 * kPi);
    w = {Point{folds.uniform(-0.3f, 0.3f), std::cos(yz), std::sin(yz)} * (2 * kPi / folds.uniform(34, 55)), folds.uniform(0, 2 * kPi),
         folds.uniform(1.5f, 3)};
  }

  cerebrum_up_ = Point{67, 85, 61} + vary.shift(1.2f);
  cerebrum_down_ = 33;
  temporal_ = Point{42, 6, -23} + vary.shift(0.8f);
  temporal_radii_ = Point{24, 43, 22} + vary.shift(0.8f);
  const float ventricle = (0.85f + 0.35f * atrophy) * (1 + 0.06f * vary.bounded());
  const float nuclei = 1 + 0.02f * vary.bounded();
  const auto common = [&] { return nuclei * (1 + 0.03f * vary.bounded()); };
  const float thalamus = common(), putamen = common(), pallidum = common(), amygdala = common(), caudate = common(), hippocampus = common();
  for (Side& side : sides_) {
    const auto own = [&] { return 1 + 0.01f * vary.bounded(); };
    side.thalamus = vary.ellipsoid(Point{12, -11, 3} + vary.shift(0.4f), {9.6f, 16.5f, 10.5f}, -0.35f, 0.1f, thalamus * own());
    side.putamen = vary.ellipsoid(Point{27.5f, 3, 1} + vary.shift(0.4f), {6, 16.5f, 12}, -0.2f, 0, putamen * own());
    side.pallidum = vary.ellipsoid(Point{20, 0, -1} + vary.shift(0.3f), {5.2f, 11, 8}, -0.3f, 0, pallidum * own());
    side.amygdala = vary.ellipsoid(Point{24, 0, -20} + vary.shift(0.4f), {8, 8.5f, 8}, 0.2f, 0, amygdala * own());
    side.ventricle = chain({{{9, 33, 6}, 4.2f},
                            {{9.5f, 16, 16}, 4.6f},
                            {{11, -8, 21}, 4.8f},
                            {{18, -32, 17}, 5.6f},
                            {{25, -42, 8}, 5.4f},
                            {{25, -58, 5}, 3.2f}},
                           vary.shift(0.3f), ventricle * own());
    side.caudate =
        chain({{{15.5f, 23, 2}, 6.6f}, {{17, 14, 10}, 6}, {{20, -4, 20}, 4}, {{24, -20, 19}, 3.1f}}, vary.shift(0.3f), caudate * own());
    side.hippocampus = chain({{{25, -9, -19}, 6.4f}, {{28, -22, -16}, 6}, {{28.5f, -32, -9}, 5.2f}, {{25, -38, -1}, 4}}, vary.shift(0.4f),
                             hippocampus * own());
  }
  third_ = vary.ellipsoid({0, -7, -2}, {std::max(2.2f + 1.4f * atrophy, 0.9f * voxel), 14, 10}, 0, 0, 1 + 0.03f * vary.bounded());
  fourth_ = vary.ellipsoid({0, -39, -37}, {8.5f, 6.5f, 11}, 0, -0.15f, 1 + 0.05f * vary.bounded());
  const float cerebellum = 1 + 0.02f * vary.bounded();
  for (Ellipsoid& e : cerebellum_) e = vary.ellipsoid(Point{24, -58, -44} + vary.shift(0.4f), {29, 31, 22}, 0.3f, 0.25f, cerebellum);
  vermis_ = vary.ellipsoid({0, -62, -38}, {14, 22, 18}, 0, 0.2f, cerebellum);
  pons_ = vary.ellipsoid({0, -22, -33}, {16, 12.5f, 13}, 0, 0.25f, 1 + 0.03f * vary.bounded());
  stem_ = chain({{{0, -18, -12}, 12}, {{0, -24, -35}, 12.5f}, {{0, -34, -64}, 8}, {{0, -37, -74}, 6.5f}}, vary.shift(0.3f),
                1 + 0.03f * vary.bounded());
  canal_ = cone({0, -32, -55}, {0, -37, -78}, 15, 10);
  airway_ = cone({0, 56, -66}, {0, 14, -92}, 8, 6);
  neck_ = cone({0, -20, -60}, {0, -35, -150}, 62, 58);
  face_ = vary.ellipsoid(Point{0, 46, -62} + vary.shift(1.5f), {58, 48, 72}, 0, 0.1f, 1);
  eye_ = vary.ellipsoid(Point{32, 71, -33} + vary.shift(0.8f), {12, 12, 12}, 0, 0, 1);
  nose_ = vary.ellipsoid(Point{0, 70, -58} + vary.shift(1), {11, 20, 19}, 0, 0, 1);
  folia_phase_ = sizes.uniform(0, 2 * kPi);
}

// The smooth hull of both hemispheres: an egg flattened below, the temporal lobes, hollowed where cerebellum and brain stem lie.
float Head::cerebrum(Point q, float cerebellum, float stem) const {
  const Point main{q.x, q.y, q.z - 9};
  const float egg = ellipsoid_distance(main, {cerebrum_up_.x, cerebrum_up_.y, main.z > 0 ? cerebrum_up_.z : cerebrum_down_});
  const float lobe = ellipsoid_distance(q - temporal_, temporal_radii_);
  const float below = std::max(-17 - q.z, 0.0f);  // higher up the brain stem grows into the hemispheres
  return smooth_max(smooth_max(smooth_min(egg, lobe, 9), gap_ - cerebellum, 4), gap_ - stem - 40 * std::max(1 - below, 0.0f), 4);
}

// Distance from the pial surface into the brain. The surface is the hull cut by slabs of CSF: the fissure between the hemispheres, the
// lateral (Sylvian) and cingulate sulci, and sulci along the zeros of g(u), u = the point projected on a sphere:
//   g = sum a cos(k.u + phi),  distance to a zero ~ atan2(|g|, |grad g| / k) / k  (exact for one plane wave, bounded where waves cancel).
// Distance to a slab of half width w that ends at depth D: hypot(max(across - w, 0), max(depth - D, 0)), negative inside.
float Head::pial_distance(Point p, Point q, float depth) const {
  const auto slab = [](float across, float beyond) { return beyond > 0 ? std::hypot(std::max(across, 0.0f), beyond) : across; };
  float d = depth;

  const float core =
      ellipsoid_distance({0, q.y + 3, q.z - 1}, {1e6f, 41, 27});  // callosum, ventricles, thalami: no fissure inside this ellipse
  d = std::min(d, slab(q.x - std::max(sulcus_, 0.55f * voxel_), -core));
  float shift[3];
  for (int i = 0; i < 3; ++i) {
    float c;
    sin_cos(dot(wobble_[i].k, p) + wobble_[i].phase, shift[i], c);
    shift[i] *= wobble_[i].amplitude;
  }
  d = std::min(d, slab(std::fabs(core + shift[0] - 13) - sulcus_, std::max(q.x - 9, -q.z)));
  const float x = q.x + shift[2], y = q.y - 10, ends = std::max(q.y - 28, -36 - q.y);
  const float sylvian = q.z + shift[1] - 2 + 0.3f * y + 0.003f * y * y;
  d = std::min(d, slab(std::fabs(sylvian) - 1.4f * sulcus_, std::max(39 - x, ends)));
  d = std::min(d, slab(std::fabs(x - 39) - 1.2f * sulcus_, std::max(std::fabs(sylvian - 3) - 12, ends + 6)));  // before the insula

  const Point from{p.x, p.y, (p.z - 9) * (p.z > 9 ? 1.0f : 1.25f)};
  const float radius = length(from) + 1e-3f;
  const Point u = from * (kFoldRadius / radius);
  float limit = 0.72f;
  for (const Wave& w : depths_) {
    float s, c;
    sin_cos(dot(w.k, u) + w.phase, s, c);
    limit += w.amplitude * c;
  }
  limit *= sulcus_depth_ *
           std::clamp((std::hypot(q.x, q.y) - 12) / 16 + std::max(q.z + 10, 0.0f) / 12, 0.0f, 1.0f);  // none at the base's centre
  if (limit > 3 && depth < limit + thickness_ + voxel_) {
    float g = 0;
    Point slope{0, 0, 0};
    for (const Wave& w : folds_) {
      float s, c;
      sin_cos(dot(w.k, u) + w.phase, s, c);
      g += c;
      slope = slope - w.k * s;
    }
    slope = slope - u * (dot(slope, u) / (kFoldRadius * kFoldRadius));
    const float across = quadrant_angle(std::fabs(g), length(slope) / fold_k_) / fold_k_ * std::min(radius / kFoldRadius, 1.2f);
    d = std::min(d, slab(across - sulcus_ * (1 - 0.4f * std::max(depth, 0.0f) / limit), depth - limit));
  }
  return d;
}

float Head::cavity_distance(Point q) const {
  const Point main{q.x, q.y, q.z - 9};
  const Point r = cerebrum_up_ + Point{gap_, gap_, gap_};
  float d = ellipsoid_distance(main, {r.x, r.y, main.z > 0 ? r.z : cerebrum_down_ + 4 + gap_});
  d = smooth_min(d, ellipsoid_distance(q - temporal_, temporal_radii_ + Point{gap_, gap_, gap_}), 9);
  d = smooth_min(d, ellipsoid_distance(q - Point{0, -54, -41}, {52 + gap_, 37 + gap_, 27 + gap_}), 10);
  return smooth_min(d, distance(canal_, q), 6);
}

void Head::paint_outside(Mix& mix, Point q, float cavity) const {
  const float head = smooth_min(smooth_min(cavity - 14, distance(face_, q), 14), distance(neck_, q), 20);
  if (head > voxel_) return;
  mix.paint(head, kFat, 0);
  mix.paint(head + 3.5f, kMuscle, 0);
  if (q.y > 0 && q.z < 0) {
    mix.paint(distance(eye_, q) - 2.5f, kFat, 0);
    mix.paint(distance(eye_, q), kVitreous, 0);
    mix.paint(distance(nose_, q), kAir, 0);
    mix.paint(distance(airway_, q), kAir, 0);
  }
  mix.paint(cavity - 7.5f, kBone, 0);
  if (voxel_ <= 2) mix.paint(std::fabs(cavity - 4) - 1.2f, kMarrow, 0);
}

void Head::paint_nuclei(Mix& mix, Point q, const Side& side, int right, float hull) const {
  const auto nucleus = [&](const Ellipsoid& e, Tissue tissue, int id) {
    const Point d = q - e.centre;
    if (dot(d, d) < e.reach2) mix.paint(std::max(distance(e, q), hull + thickness_ * 0.4f), tissue, id);
  };
  nucleus(side.putamen, kPutamen, right ? 51 : 12);
  nucleus(side.pallidum, kPallidum, right ? 52 : 13);
  nucleus(side.thalamus, kThalamus, right ? 49 : 10);
  mix.paint(chain_distance(side.caudate, q, 2), kCaudate, right ? 50 : 11);
  mix.paint(std::max(chain_distance(side.hippocampus, q, 2), hull + thickness_ * 0.4f), kHippocampus, right ? 53 : 17);
  nucleus(side.amygdala, kAmygdala, right ? 54 : 18);
  mix.paint(chain_distance(side.ventricle, q, 3), kCsf, right ? 43 : 4);
  nucleus(third_, kCsf, 14);
}

Head::Sample Head::sample(Point p) const {
  const int right = p.x > 0;
  const Side& side = sides_[right];
  const Point q{std::fabs(p.x), p.y, p.z};
  Mix mix{intensity_, 1 / voxel_, intensity_[kAir]};
  const float cavity = cavity_distance(q);
  if (cavity > -voxel_) paint_outside(mix, q, cavity);
  if (cavity > voxel_) return {mix.value, 0};
  mix.paint(cavity, kCsf, 24);

  const float cerebellum = smooth_min(distance(cerebellum_[right], q), distance(vermis_, q), 6);
  const float stem = smooth_min(chain_distance(stem_, q, 5), distance(pons_, q), 6);
  const float hull = cerebrum(q, cerebellum, stem);
  if (hull < voxel_) {
    const float pial = pial_distance(p, q, -hull);
    mix.paint(-pial, kCortex, right ? 42 : 3);
    mix.paint(thickness_ - pial, kWhite, right ? 41 : 2);
  }
  if (cerebellum < voxel_) {
    mix.paint(cerebellum, kCerebellarCortex, right ? 47 : 8);
    const float angle = quadrant_angle(std::fabs(q.z + 40), std::fabs(q.y + 36) + 0.1f) *
                        (q.z > -40 ? 1.0f : -1.0f);  // folia fan out from the 4th ventricle
    float s, c;
    sin_cos(14 * angle + folia_phase_, s, c);
    mix.paint(cerebellum + 7.5f + 2.5f * s, kCerebellarWhite, right ? 46 : 7);
  }
  if (stem < voxel_) mix.paint(stem, kBrainStem, 16);
  if (cerebellum < voxel_ + 8 || stem < voxel_) mix.paint(distance(fourth_, q), kCsf, 15);
  if (q.x < 46 && q.y > -66 && q.y < 44 && q.z > -34 && q.z < 36) paint_nuclei(mix, q, side, right, hull);
  return {mix.value, mix.label};
}

}  // namespace vg::phantom
