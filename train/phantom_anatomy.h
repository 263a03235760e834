// The anatomy of one synthetic head as implicit shapes: for a point in template space (mm, RAS, origin near the anterior commissure) it
// tells the signed distances to skull, folded cortex and nuclei, painted one over the other with soft edges (partial volume) into one
// intensity and one label.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

namespace vg::phantom {

struct Point {
  float x, y, z;
};

// What a voxel can be made of; the intensity of each is drawn per subject.
enum Tissue {
  kAir,
  kFat,
  kMuscle,
  kBone,
  kMarrow,
  kVitreous,
  kCsf,
  kCortex,
  kWhite,
  kThalamus,
  kCaudate,
  kPutamen,
  kPallidum,
  kHippocampus,
  kAmygdala,
  kCerebellarCortex,
  kCerebellarWhite,
  kBrainStem,
  kTissues
};

// One random stream per kind of variation: changing how many numbers one of them draws leaves the others as they were.
enum Feature { kPose, kElastic, kFolds, kSizes, kContrast, kBiasField, kNoise, kFeatures };
constexpr std::uint64_t stream_of(int subject, Feature feature) { return static_cast<std::uint64_t>(subject) * 64 + feature; }

struct Ellipsoid {
  Point centre;
  Point radii;
  float axis[3][3];  // rows: directions of the radii
  float reach2;      // squared distance from the centre beyond which nothing is painted
};

// A capsule whose radius runs from ra (at a) to rb.
struct Cone {
  Point a, along;  // along = b - a
  float inverse_length2, ra, rb;
};

// Distances in mm; negative is inside.
float distance(const Ellipsoid& e, Point p);
float distance(const Cone& c, Point p);

class Head {
 public:
  // voxel: mm. Details that such a grid cannot show are coarsened: cortex, sulci and CSF gaps are at least about 1.3 voxels wide.
  Head(std::uint64_t seed, int subject, float voxel, const std::array<float, kTissues>& intensity);

  struct Sample {
    float value;  // mixed intensity
    int label;    // FreeSurfer aseg id of what the voxel's centre lies in; 0 outside the cranial cavity
  };
  Sample sample(Point p) const;

 private:
  struct Wave {
    Point k;  // radians per mm
    float phase, amplitude;
  };
  struct Side {  // q = (|x|, y, z): both hemispheres are drawn on the right, each with its own sizes
    Ellipsoid thalamus, putamen, pallidum, amygdala;
    std::vector<Cone> ventricle, caudate, hippocampus;
  };
  struct Mix;

  float cerebrum(Point q, float cerebellum, float stem) const;
  float pial_distance(Point p, Point q, float depth) const;
  void paint_outside(Mix& mix, Point q, float cavity) const;
  void paint_nuclei(Mix& mix, Point q, const Side& side, int right, float hull) const;
  float cavity_distance(Point q) const;

  float voxel_, thickness_, sulcus_, sulcus_depth_, gap_, fold_k_;
  std::array<float, kTissues> intensity_;
  std::vector<Wave> folds_, depths_;
  Wave wobble_[3];  // bends cingulate and lateral sulcus by a few mm
  Side sides_[2];   // left, right
  Ellipsoid third_, fourth_, pons_, vermis_, face_, eye_, nose_, cerebellum_[2];
  std::vector<Cone> stem_;
  Cone canal_, neck_, airway_;
  Point cerebrum_up_, temporal_, temporal_radii_;
  float cerebrum_down_;
  float folia_phase_;
};

}  // namespace vg::phantom
